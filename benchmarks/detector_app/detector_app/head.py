"""The head in Keras: three blocks of the trunk are added up, then heat and sides for each cell."""

from typing import Any

import keras
from keras import layers, ops

TAPS = (15, 10, 4)  # blocks of the trunk with strides of 32, 16, 8
WIDTH = 64  # channels


def build(blocks: list[Any], labels: int) -> keras.Model:
    """Return the head on the trunk's blocks, the coarsest first."""
    inputs = [keras.Input(block.shape[1:]) for block in blocks]
    x = None
    for tap, block in zip(TAPS, inputs, strict=True):
        side = layers.Conv2D(WIDTH, 1, name=f"lateral_{tap}")(block)
        x = side if x is None else side + layers.UpSampling2D(2)(x)
    x = layers.ReLU(6.0)(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="around")(x)
    x = layers.ReLU(6.0)(layers.Conv2D(WIDTH, 1, name="mix")(x))
    heat = layers.Conv2D(labels, 1, name="heat")(x)
    sides = layers.Conv2D(4, 1, name="sides")(x)
    return keras.Model(inputs, {"heat": heat, "sides": sides})


def heat_loss(truth: Any, logits: Any) -> Any:
    """Return the focal loss for each thing: arXiv:1904.07850, equation 1."""
    hit, miss = -ops.softplus(-logits), -ops.softplus(logits)
    p, middle = ops.sigmoid(logits), ops.cast(truth >= 1.0, "float32")
    near = ops.square(ops.square(1.0 - truth))
    rows = middle * ops.square(1.0 - p) * hit + (1.0 - middle) * near * ops.square(p) * miss
    return -ops.sum(rows) / ops.maximum(ops.sum(middle), 1.0)


def sides_loss(truth: Any, sides: Any) -> Any:
    """Return the mean difference of the sides' logarithms, by how much each cell counts."""
    share = truth[..., 4]
    away = ops.sum(ops.sqrt(ops.square(sides - truth[..., :4]) + 1e-2) - 0.1, axis=-1)
    return ops.sum(share * away) / ops.maximum(ops.sum(share), 1e-6)
