"""The detector in Keras: EfficientNet-Lite0, a small pyramid, a dense head without anchors.

    image --lite0--> blocks of stride 8, 16, 32 --1x1--> added up from the coarse to the fine
      --separable 3x3--1x1--> heat   (batch, S/8, S/8, classes)  logits: a thing's middle is here
                      --1x1--> sides  (batch, S/8, S/8, 4)        log of the way to its four sides

Things are points, as in CenterNet (Zhou et al. 2019, arXiv:1904.07850); all cells around the middle
learn the sides, as in TTFNet (Liu et al. 2020, arXiv:1909.00700), which needs a tenth of the steps.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fleet_model.bundle import TensorSpec
from fleet_model.errors import SettingsError
from fleet_model.types import Target
from fleet_model.workloads.image_classifier.networks import (
    lite0_blocks,
    load_lite0_blocks,
    seeded_normal,
)
from fleet_model.workloads.object_detector.detector import (
    ANSWERS,
    MOST_BOXES,
    NOTHING,
    ObjectDetector,
)
from fleet_model.workloads.object_detector.map_loss import STRIDE, map_loss

if TYPE_CHECKING:
    import keras

TAPS = (4, 10, 15)  # blocks of Lite0 with strides of 8, 16, 32
WIDTH = 64  # channels of the pyramid
FIRST_SCORE = 0.01  # that an untrained head gives everywhere: empty cells cost little at the start
FIRST_SIDE = 2.5  # cells from the middle to each side: 40 pixels wide and high
MEASURED = 32  # pictures that set the scale of the trunk's channels
OVERLAP = 0.5  # IoU from which the worse one of two boxes of a class is left out


class ObjectDetectorModel:
    """`KerasModel` of the object detector."""

    litert_scopes = frozenset({"head", "last-block"})
    class_axes: ClassVar[Mapping[str, int]] = {"heat/kernel": 3, "heat/bias": 0}

    def __init__(self, workload: ObjectDetector) -> None:
        self._workload = workload
        self._grid = workload.image_size // STRIDE

    @property
    def maps(self) -> Mapping[str, TensorSpec]:
        """Return what the model itself gives: boxes are read from it by `answer`."""
        side, labels = self._grid, len(self._workload.labels)
        return {
            "heat": TensorSpec(shape=(side, side, labels)),
            "sides": TensorSpec(shape=(side, side, 4)),
        }

    def build(self, *, initial_weights: bool = True) -> "keras.Model":
        """Return the model: image (batch, S, S, 3) RGB 0..255 -> `maps`.

        Raises:
            SettingsError: the package with the trunk's initial weights is not installed.
        """
        import keras
        from keras import layers

        size, labels = self._workload.image_size, len(self._workload.labels)
        image = keras.Input((size, size, 3), name="image")
        blocks = lite0_blocks(image)
        x = None
        for tap in reversed(TAPS):
            side = layers.Conv2D(WIDTH, 1, name=f"lateral_{tap}")(
                layers.BatchNormalization(name=f"norm_{tap}")(blocks[tap])
            )
            x = side if x is None else layers.Add(name=f"sum_{tap}")([side, _doubled(x)])
        x = layers.ReLU(6.0, name="pyramid")(x)
        x = layers.DepthwiseConv2D(3, 1, "same", name="around")(x)
        x = layers.ReLU(6.0, name="mixed")(layers.Conv2D(WIDTH, 1, name="mix")(x))
        heat = layers.Conv2D(labels, 1, name="heat")(x)
        sides = layers.Conv2D(4, 1, name="sides")(x)
        model = keras.Model(image, {"heat": heat, "sides": sides}, name="object_detector")
        if initial_weights:
            load_lite0_blocks(model)
            self._measure(keras.Model(image, [blocks[tap] for tap in TAPS]), model)
            _start(model)
        return model

    def _measure(self, trunk: "keras.Model", model: "keras.Model") -> None:
        """Let each channel of the trunk have mean 0 and deviation 1 on the shipped pictures.

        Their deviations differ a hundredfold, and plain SGD would learn from the largest alone.
        """
        samples = islice(self._workload.samples(None), MEASURED)
        pictures = np.stack([sample.encoded.inputs["image"] for sample in samples])
        for tap, blocks in zip(TAPS, trunk.predict(pictures, batch_size=8, verbose=0), strict=True):
            norm = model.get_layer(f"norm_{tap}")
            norm.moving_mean.assign(blocks.mean(axis=(0, 1, 2)))
            norm.moving_variance.assign(blocks.var(axis=(0, 1, 2)))

    def trainable(self, model: "keras.Model", scope: str) -> Sequence[str]:
        """Return the variable paths that `scope` trains, without any of BatchNormalization."""
        import keras

        first = {"head": _HEAD, "last-block": (*_LAST_BLOCK, *_HEAD)}
        if scope not in first:
            raise SettingsError(f"unknown trainable {scope!r}; choose {', '.join(first)}")
        return [
            variable.path
            for layer in model.layers
            if layer.name in first[scope] and not isinstance(layer, keras.layers.BatchNormalization)
            for variable in layer.trainable_variables
        ]

    def drawn_targets(self, rng: np.random.Generator) -> Sequence[Target]:
        """Return a few frames' boxes for the check of exports: from none to many, of all sizes."""
        size, labels = self._workload.image_size, len(self._workload.labels)
        drawn = []
        for count in (0, 1, 3, MOST_BOXES):
            boxes = np.zeros((MOST_BOXES, 4), np.float32)
            corners = rng.uniform(0, size, (count, 2, 2))
            boxes[:count] = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 2], axis=1)
            classes = np.full(MOST_BOXES, NOTHING, np.int32)
            classes[:count] = rng.integers(0, labels, count)
            drawn.append(Target(tensors={"box": boxes, "class": classes}))
        return drawn

    def loss(self, targets: Any, outputs: Any, sample_weight: Any) -> Any:
        """Return the loss of maps; see `map_loss`."""
        return map_loss(targets, outputs, sample_weight, self._workload.share)

    def answer(self, maps: Mapping[str, Any]) -> dict[str, Any]:
        """Return the boxes that maps show: `Task.outputs`, with a batch axis.

        Peaks of the heat among their eight neighbors; of two of one class that overlap by OVERLAP
        the worse one gets the score 0 (Fast NMS, arXiv:1904.02689, section 3.3).
        """
        from keras import ops

        labels = len(self._workload.labels)
        logits = maps["heat"]
        top = ops.max_pool(logits, 3, 1, "same")
        # Ranked by logits: sigmoids of one that is near 1 are equal, and engines round them apart.
        peaks = logits - 1e9 * ops.cast(logits < top, "float32")
        cells = self._grid * self._grid
        ranked, index = ops.top_k(ops.reshape(peaks, (-1, cells * labels)), ANSWERS)
        cell, classes = index // labels, index % labels
        sides = ops.reshape(maps["sides"], (-1, cells, 4))
        ways = ops.exp(ops.take_along_axis(sides, cell[..., None], axis=1)) * STRIDE
        x = (ops.cast(cell % self._grid, "float32") + 0.5) * STRIDE
        y = (ops.cast(cell // self._grid, "float32") + 0.5) * STRIDE
        corners = [x - ways[..., 0], y - ways[..., 1], x + ways[..., 2], y + ways[..., 3]]
        boxes = ops.clip(ops.stack(corners, axis=-1), 0.0, float(self._workload.image_size))
        return {
            "boxes": boxes,
            "scores": ops.sigmoid(ranked) * _kept(boxes, classes),
            "classes": classes,
        }


_HEAD = (
    *(f"lateral_{tap}" for tap in TAPS),
    "around",
    "mix",
    "heat",
    "sides",
)
_LAST_BLOCK = ("b15_expand", "b15_dw", "b15_project")


def _start(model: "keras.Model") -> None:
    """Set what is trained: the same numbers at every call.

    Kernels begin small (Glorot and Bengio 2010, equation 16; a depthwise one counts all channels,
    as in Keras): with those of He et al. the same steps end at half the mean average precision on
    robots that never train.
    """
    first = {"heat": np.log(FIRST_SCORE / (1 - FIRST_SCORE)), "sides": np.log(FIRST_SIDE)}
    for name in _HEAD:
        layer = model.get_layer(name)
        kernel, bias = (tuple(variable.shape) for variable in layer.trainable_variables)
        fan_in, fan_out = (math.prod(kernel[:2]) * channels for channels in kernel[2:])
        scale = 0.1 if name in first else 1.0  # an answer is nearly the same everywhere
        deviation = scale * math.sqrt(2 / (fan_in + fan_out))
        path = layer.trainable_variables[0].path
        start_bias = np.full(bias, first.get(name, 0.0), np.float32)
        layer.set_weights([seeded_normal(path, kernel, deviation), start_bias])


def _doubled(x: Any) -> Any:
    """Return maps of twice the height and width; these operators have gradients in LiteRT."""
    from keras import layers

    _, height, width, channels = x.shape
    x = layers.Concatenate()([x, x])
    x = layers.Reshape((height, 2 * width * channels))(x)
    x = layers.Concatenate()([x, x])
    return layers.Reshape((2 * height, 2 * width, channels))(x)


def _kept(boxes: Any, classes: Any) -> Any:
    """Return 1 for boxes that no better one of their class overlaps, else 0: (batch, boxes)."""
    from keras import ops

    low = ops.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = ops.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    both = ops.prod(ops.maximum(high - low, 0.0), axis=-1)  # (batch, boxes, boxes)
    area = ops.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
    # No sum: Keras 3.15 takes one with (1, 1, n) for a bias, which the converter then cannot write.
    either = area[:, :, None] - (both - area[:, None, :])
    same = ops.cast(classes[:, :, None] == classes[:, None, :], "float32")
    earlier = ops.convert_to_tensor(np.triu(np.ones((ANSWERS, ANSWERS), np.float32), 1))
    overlaps = same * earlier * both / ops.maximum(either, 1e-6)
    return ops.cast(ops.max(overlaps, axis=1) < OVERLAP, "float32")
