"""A small network that knows three colors, pictures of them, and recipes."""

import os

import cv2
import numpy as np
import pytest

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
COLORS, SIDE = ("blue", "green", "red"), 32
DISTILLED = """
[data]
folder = "PICTURES"

[[step]]
do = "distill"
epochs = 30
learning_rate = 0.01
mirrored = true

[[step]]
do = "prune"
share = 0.5
among = "each"
epochs = 2
learning_rate = 0.01

[[step]]
do = "quantize"
kinds = ["int8"]
samples = 40

[[step]]
do = "export"

[[step]]
do = "benchmark"
timed = 20
"""


def colored(color, seed):
    """Return a noisy picture, brighter in one channel (OpenCV's order: blue, green, red)."""
    picture = np.random.default_rng(seed).normal(90, 40, (40, 52, 3))
    picture[..., COLORS.index(color)] += 45
    return picture.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of 40 pictures of each color."""
    root = tmp_path_factory.mktemp("colors") / "pictures"
    for number, color in enumerate(COLORS):
        (root / color).mkdir(parents=True)
        for seed in range(40):
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


@pytest.fixture(scope="session")
def narrow_checkpoint(made_once):
    """A .keras file of a network of so few numbers that fewer bits are no gain."""

    def write(folder):
        from cloud_server.compression.recipes.network import Classifier, write_classifier

        folder.mkdir()
        write_classifier(Classifier(make_network(8, 4), COLORS), folder / "narrow.keras")

    return made_once("narrow-network-of-colors", write) / "narrow.keras"


@pytest.fixture(scope="session")
def checkpoint(made_once):
    """A .keras file of a network that has learned the colors, with its labels."""

    def write(folder):
        folder.mkdir()
        from cloud_server.compression.picture_distilling import Pictures, distill_pictures
        from cloud_server.compression.recipes.network import Classifier, write_classifier
        from cloud_server.compression.teaching import Teaching

        model = make_network()
        seen = [colored(c, 1000 * n + k) for k in range(60) for n, c in enumerate(COLORS)]
        inputs = np.stack([cv2.resize(one, (SIDE, SIDE))[..., ::-1] for one in seen])
        what = Pictures(inputs, np.tile(np.arange(3), 60))
        how = Teaching(epochs=6, learning_rate=0.02, hard=1.0)
        distill_pictures(model, what, None, how, folder / "state", lambda line: None)
        write_classifier(Classifier(model, COLORS), folder / "teacher.keras")

    return made_once("network-of-colors", write) / "teacher.keras"


@pytest.fixture(scope="session")
def recipe(pictures):
    """The text of a file with all steps."""
    return DISTILLED.replace("PICTURES", str(pictures))
