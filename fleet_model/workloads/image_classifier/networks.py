"""Convolutional networks in Keras that turn an image into features, with their initial weights.

Inputs are float32 RGB 0..255: every backbone does its own scaling inside the graph, so that a robot
cannot get it wrong.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fleet_model.workloads.image_classifier.imagenet_weights import read_lite0

if TYPE_CHECKING:
    import keras

    from fleet_model.types import Tensor, Weights

LITE0_BLOCKS = (  # repeats, kernel, stride of the first, expansion, channels (EfficientNet-B0)
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One backbone without its classifier."""

    features: Callable[[Any], Any]  # image (batch, S, S, 3) -> features (batch, 1280)
    last_block: str  # the first layer that the scope "last-block" trains
    load: Callable[["keras.Model"], None]  # sets the initial weights, the same at every call


def lite0_blocks(image: Any) -> list[Any]:
    """Build EfficientNet-Lite0 (github.com/tensorflow/tpu: no squeeze-and-excite, ReLU6).

    Args:
        image: (batch, S, S, 3) RGB 0..255.

    Returns:
        What each of the 16 blocks answers; the last ones have strides of 8 (block 4, 40 channels),
        16 (block 10, 112 channels) and 32 (block 15, 320 channels).
    """
    from keras import layers

    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(image)
    x = _normalized(layers.Conv2D(32, 3, 2, "same", use_bias=False, name="stem_conv")(x), "stem_bn")
    x = layers.ReLU(6.0, name="stem_relu")(x)  # (batch, S/2, S/2, 32)
    blocks: list[Any] = []
    for repeats, kernel, stride, expansion, out in LITE0_BLOCKS:
        for repeat in range(repeats):
            name, step = f"b{len(blocks)}", stride if repeat == 0 else 1
            x = _lite0_block(x, name, kernel=kernel, stride=step, expansion=expansion, out=out)
            blocks.append(x)
    return blocks


def _lite0_features(image: Any) -> Any:
    from keras import layers

    x = lite0_blocks(image)[-1]
    x = layers.Conv2D(1280, 1, use_bias=False, name="top_conv")(x)  # (batch, S/32, S/32, 1280)
    x = layers.ReLU(6.0, name="top_relu")(_normalized(x, "top_bn"))
    return layers.GlobalAveragePooling2D(name="pool")(x)  # (batch, 1280)


def _lite0_block(
    image: Any, name: str, *, kernel: int, stride: int, expansion: int, out: int
) -> Any:
    from keras import layers

    x, channels = image, image.shape[-1]
    if expansion != 1:
        expand = layers.Conv2D(channels * expansion, 1, use_bias=False, name=f"{name}_expand")
        x = layers.ReLU(6.0, name=f"{name}_relu0")(_normalized(expand(x), f"{name}_bn0"))
    depthwise = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{name}_dw")
    x = layers.ReLU(6.0, name=f"{name}_relu1")(_normalized(depthwise(x), f"{name}_bn1"))
    x = layers.Conv2D(out, 1, use_bias=False, name=f"{name}_project")(x)
    x = _normalized(x, f"{name}_bn2")
    return layers.Add(name=f"{name}_add")([image, x]) if stride == 1 and channels == out else x


def _normalized(x: Any, name: str) -> Any:
    from keras import layers

    return layers.BatchNormalization(epsilon=1e-3, name=name)(x)


def load_lite0_blocks(model: "keras.Model") -> "Weights":
    """Set the initial weights of `lite0_blocks`; return all that the package has.

    Raises:
        SettingsError: the package is not installed.
    """
    state = read_lite0()
    _set_conv(model, "stem_conv", state["_conv_stem.weight"])
    _set_norm(model, "stem_bn", state, "_bn0")
    for number in range(sum(row[0] for row in LITE0_BLOCKS)):
        ours, theirs = f"b{number}", f"_blocks.{number}."
        if f"{theirs}_expand_conv.weight" in state:
            _set_conv(model, f"{ours}_expand", state[f"{theirs}_expand_conv.weight"])
            _set_norm(model, f"{ours}_bn0", state, f"{theirs}_bn0")
        # PyTorch (channels, 1, rows, columns) -> Keras (rows, columns, channels, 1)
        depthwise = state[f"{theirs}_depthwise_conv.weight"].transpose(2, 3, 0, 1)
        model.get_layer(f"{ours}_dw").set_weights([depthwise])
        _set_norm(model, f"{ours}_bn1", state, f"{theirs}_bn1")
        _set_conv(model, f"{ours}_project", state[f"{theirs}_project_conv.weight"])
        _set_norm(model, f"{ours}_bn2", state, f"{theirs}_bn2")
    return state


def _load_lite0(model: "keras.Model") -> None:
    state = load_lite0_blocks(model)
    _set_conv(model, "top_conv", state["_conv_head.weight"])
    _set_norm(model, "top_bn", state, "_bn1")


def _set_conv(model: "keras.Model", layer: str, kernel: "Tensor") -> None:
    # PyTorch (out, in, rows, columns) -> Keras (rows, columns, in, out)
    model.get_layer(layer).set_weights([kernel.transpose(2, 3, 1, 0)])


def _set_norm(model: "keras.Model", layer: str, state: "Weights", prefix: str) -> None:
    parts = ("weight", "bias", "running_mean", "running_var")
    model.get_layer(layer).set_weights([state[f"{prefix}.{part}"] for part in parts])


def _mobilenet_features(image: Any) -> Any:
    """Build MobileNetV2 (arXiv:1801.04381) with width 0.35."""
    import keras

    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(image)
    network = keras.applications.MobileNetV2(
        input_tensor=scaled, alpha=0.35, include_top=False, weights=None
    )
    pool = keras.layers.GlobalAveragePooling2D(name="pool")
    return pool(network.output)  # (batch, 1280)


def _load_random(model: "keras.Model") -> None:
    """Fill kernels with He-normal numbers (arXiv:1502.01852) that depend on the path alone."""
    for variable in model.variables:
        if variable.path.endswith("kernel"):
            variable.assign(seeded_kernel(variable.path, tuple(variable.shape)))


def seeded_kernel(path: str, shape: tuple[int, ...]) -> "Tensor":
    """Return He-normal float32 numbers; the same ones for the same path and shape, everywhere."""
    fan_in = int(np.prod(shape[:2] if len(shape) == 4 and shape[3] == 1 else shape[:-1]))
    return seeded_normal(path, shape, np.sqrt(2.0 / fan_in))


def seeded_normal(path: str, shape: tuple[int, ...], deviation: float) -> "Tensor":
    """Return normal float32 numbers around 0; the same ones for the same path and shape."""
    rng = np.random.default_rng(zlib.crc32(path.encode()))
    return rng.normal(0.0, deviation, shape).astype(np.float32)


NETWORKS = {  # the keys of classifier.BACKBONES
    "efficientnet-lite0": Network(
        features=_lite0_features, last_block="b15_expand", load=_load_lite0
    ),
    "mobilenet-v2-035": Network(
        features=_mobilenet_features, last_block="block_16_expand", load=_load_random
    ),
}
