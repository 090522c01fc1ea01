"""Pictures of three colors, and a small network that knows them."""

import os

import cv2
import numpy as np

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
COLORS, SIDE = ("blue", "green", "red"), 32


def colored(color, seed):
    """Return a noisy picture, brighter in one channel (OpenCV's order: blue, green, red)."""
    picture = np.random.default_rng(seed).normal(90, 40, (40, 52, 3))
    picture[..., COLORS.index(color)] += 45
    return picture.clip(0, 255).astype(np.uint8)


def write_pictures(root, count=40):
    """Write folders of so many pictures of each color."""
    for number, color in enumerate(COLORS):
        (root / color).mkdir(parents=True)
        for seed in range(count):
            picture = colored(color, 100 * number + seed)
            cv2.imwrite(str(root / color / f"{seed}.png"), picture)
    return root


def make_network(inside=128, channels=16):
    """Return two blocks whose channels can be narrowed, and a head."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = layers.Rescaling(1 / 128, -1)(image)
    x = layers.ReLU(6.0)(layers.Conv2D(channels, 3, 4, "same", name="stem")(x))
    for block in range(2):
        before = x
        x = layers.Conv2D(inside, 1, use_bias=False, name=f"b{block}_expand")(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.8)(x))
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"b{block}_dw")(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.8)(x))
        x = layers.Conv2D(channels, 1, use_bias=False, name=f"b{block}_project")(x)
        x = layers.Add(name=f"b{block}_add")([before, layers.BatchNormalization(momentum=0.8)(x)])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(len(COLORS), name="head")(x))


def write_checkpoint(file, state):
    """Write a .keras file of a network that has learned the colors, with its labels."""
    from cloud_server.compression.picture_distilling import Pictures, distill_pictures
    from cloud_server.compression.recipes.network import Classifier, write_classifier
    from cloud_server.compression.teaching import Teaching

    model = make_network()
    seen = [colored(c, 1000 * n + k) for k in range(60) for n, c in enumerate(COLORS)]
    inputs = np.stack([cv2.resize(one, (SIDE, SIDE))[..., ::-1] for one in seen])
    what = Pictures(inputs, np.tile(np.arange(3), 60))
    how = Teaching(epochs=6, learning_rate=0.02, hard=1.0)
    distill_pictures(model, what, None, how, state, lambda line: None)
    write_classifier(Classifier(model, COLORS), file)
