"""Say which of a few classes a camera frame shows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import Frame, Metrics, Prediction, RgbImage, Tensor, TrainConfig
from fleet_model.workloads.backbones import BACKBONES, seeded_kernel

if TYPE_CHECKING:
    import keras

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 1024  # pixels; the backbones halve an image five times


class ImageClassifier:
    """A backbone and one dense layer named "head"."""

    name = "image-classifier"

    def __init__(
        self,
        labels: Sequence[str],
        backbone: str = "efficientnet-lite0",
        image_size: int | None = None,
    ) -> None:
        """Choose the network.

        Args:
            labels: at least two class names; their order is the order of the logits.
            backbone: a key of BACKBONES.
            image_size: side of the square input in pixels; None takes the backbone's own.

        Raises:
            SettingsError: one of them is wrong.
        """
        if backbone not in BACKBONES:
            raise SettingsError(
                f"unknown backbone {backbone!r}; choose {', '.join(sorted(BACKBONES))}"
            )
        size = BACKBONES[backbone].image_size if image_size is None else image_size
        if not (isinstance(size, int) and MIN_IMAGE_SIZE <= size <= MAX_IMAGE_SIZE):
            raise SettingsError(
                f"image_size is {size!r}, expected {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels"
            )
        self.labels = _checked_labels(labels)
        self.backbone = backbone
        self.image_size = size

    @property
    def training(self) -> TrainConfig:
        """Return how a head on this backbone trains well."""
        return TrainConfig(learning_rate=BACKBONES[self.backbone].learning_rate)

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the keyword arguments that rebuild this workload."""
        return {
            "labels": list(self.labels),
            "backbone": self.backbone,
            "image_size": self.image_size,
        }

    def build(self, *, initial_weights: bool = True) -> "keras.Model":
        """Return the model: image (batch, S, S, 3) RGB 0..255 -> logits (batch, labels).

        Raises:
            SettingsError: the package with the backbone's initial weights is not installed.
        """
        import keras

        image = keras.Input((self.image_size, self.image_size, 3), name="image")
        features = BACKBONES[self.backbone].features(image)  # (batch, 1280)
        head = keras.layers.Dense(len(self.labels), name="head")
        model = keras.Model(image, head(features), name="image_classifier")
        if initial_weights:
            BACKBONES[self.backbone].load(model)
            kernel = seeded_kernel("head/kernel", tuple(head.kernel.shape))
            # Small: a loss near ln(classes) at the start, yet no ties between the classes.
            head.set_weights([0.1 * kernel, np.zeros(len(self.labels), np.float32)])
        return model

    def trainable(self, model: "keras.Model", scope: str) -> Sequence[str]:
        """Return the variable paths that `scope` trains, without any of BatchNormalization.

        Its statistics do not survive averaging over robots with different pictures, so they stay
        as they are and the layers run in inference mode.
        """
        import keras

        first = {
            "head": "head",
            "last-block": BACKBONES[self.backbone].last_block,
            "all": model.layers[0].name,
        }
        if scope not in first:
            raise SettingsError(f"unknown trainable {scope!r}; choose {', '.join(first)}")
        names = [layer.name for layer in model.layers]
        return [
            variable.path
            for layer in model.layers[names.index(first[scope]) :]
            if not isinstance(layer, keras.layers.BatchNormalization)
            for variable in layer.trainable_variables
        ]

    def encode(self, raw: Frame) -> Mapping[str, Tensor]:
        """Decode a frame; cut the largest centred square; scale it: (S, S, 3) float32 0..255."""
        return {"image": _centre_square(raw.decode(), self.image_size).astype(np.float32)}

    def target(self, label: str) -> int:
        """Return the index of a label."""
        try:
            return self.labels.index(label)
        except ValueError:
            raise FrameError(
                f"unknown label {label!r}; this workload knows {', '.join(self.labels)}"
            ) from None

    def loss(self, targets: Any, outputs: Any, sample_weight: Any) -> Any:
        """Return sum(w * cross entropy) / sum(w): a row of weight 0 changes nothing."""
        from keras import ops

        chosen = ops.one_hot(targets, len(self.labels), dtype="float32")  # (batch, labels)
        rows = -ops.sum(chosen * ops.log_softmax(outputs, axis=-1), axis=-1)  # (batch,)
        return ops.sum(sample_weight * rows) / ops.maximum(ops.sum(sample_weight), 1e-6)

    def decode(self, output: Tensor) -> Sequence[Prediction]:
        """Rank the classes by their softmax probability."""
        scores = np.exp(_log_softmax(output[None]))[0]
        order = np.argsort(-output, kind="stable")
        return [Prediction(label=self.labels[i], score=float(scores[i])) for i in order]

    def metrics(self, outputs: Tensor, targets: Tensor) -> Metrics:
        """Return accuracy (0..1) and the mean cross entropy in nats."""
        rows = np.arange(len(targets))
        return {
            "accuracy": float(np.mean(outputs.argmax(axis=-1) == targets)),
            "loss": float(-np.mean(_log_softmax(outputs)[rows, targets])),
        }


def _checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    if isinstance(labels, str) or not all(isinstance(name, str) and name for name in labels):
        raise SettingsError(f"labels are {labels!r}, expected a list of names")
    if len(labels) < 2:
        raise SettingsError(f"labels are {list(labels)}, expected at least two")
    if len(set(labels)) < len(labels):
        raise SettingsError(f"labels are {list(labels)}, expected no name twice")
    return tuple(labels)


def _centre_square(image: RgbImage, size: int) -> Tensor:
    import cv2

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side == size:
        return square
    # Averaging areas keeps fine texture from aliasing; it cannot enlarge.
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=how))


def _log_softmax(logits: Tensor) -> Tensor:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
