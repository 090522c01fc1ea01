"""Encode a camera frame, know its class, rank the classes that a model answers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fleet_model.bundle import Task, TensorSpec
from fleet_model.errors import SettingsError
from fleet_model.types import (
    Encoded,
    Example,
    Frame,
    Metrics,
    Prediction,
    RgbImage,
    Target,
    Tensor,
    Tensors,
    TrainConfig,
)
from fleet_model.workload import Certainty, OwnTruth, Sample
from fleet_model.workloads.class_names import checked_names
from fleet_model.workloads.classes import (
    accuracy,
    class_certainty,
    class_own_truth,
    class_target,
    cross_entropy,
    ranked,
)
from fleet_model.workloads.image_classifier.calibration import calibration_frames
from fleet_model.workloads.scaling import scaled

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 1024  # pixels; the backbones halve an image five times


class Backbone(NamedTuple):
    """What is known of a network without building it."""

    image_size: int  # pixels, the default
    # For a head by SGD with momentum 0.9; shrinks as the square of the features' length: about 32
    # for Lite0 and 77 for the random MobileNet on robot-camera frames, where 0.01 diverges.
    learning_rate: float


BACKBONES = {
    "efficientnet-lite0": Backbone(image_size=128, learning_rate=0.01),
    "mobilenet-v2-035": Backbone(image_size=96, learning_rate=0.001),
}


class ImageClassifier:
    """The class of a whole image: one of a few names."""

    classes_setting = "labels"
    class_bias = "head/bias"
    raw_kind = "frame"
    input_ranges: ClassVar[Mapping[str, tuple[float, float]]] = {"image": (0.0, 255.0)}

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
        self.labels = checked_names(labels, 2)
        self.backbone = backbone
        self.image_size = size

    @property
    def task(self) -> Task:
        """An RGB image 0..255 goes in, one logit for each label comes out."""
        return Task(
            inputs={"image": TensorSpec(shape=(self.image_size, self.image_size, 3))},
            targets={"class": TensorSpec(shape=(), dtype="int32")},  # index in labels
            outputs={"logits": TensorSpec(shape=(len(self.labels),))},
            measures={"accuracy": "higher", "loss": "lower"},
            answer="class",
            classes=self.labels,
        )

    @property
    def training(self) -> TrainConfig:
        """Return how a head on this backbone trains well."""
        rate = BACKBONES[self.backbone].learning_rate
        return TrainConfig(learning_rate=rate, logit_adjustment=1.0)

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the keyword arguments that rebuild this workload."""
        return {
            "labels": list(self.labels),
            "backbone": self.backbone,
            "image_size": self.image_size,
        }

    def encode(self, raw: Frame) -> Encoded:
        """Decode a frame; cut the largest centred square; scale it: (S, S, 3) float32 0..255.

        A large JPEG is decoded at half or a quarter of its size. The input then differs from that
        of the whole one by 1.5 of 255 on average at most
        (tests/edge_agent/data/pictures/test_reduced.py).
        """
        picture = raw.reduced(self.image_size) if raw.reduced else raw.decode()
        image = _centre_square(picture, self.image_size).astype(np.float32)
        return Encoded(inputs={"image": image})

    def target(self, example: Example) -> Target:
        """Return the index of the example's label."""
        return class_target(self.labels, example)

    def samples(self, folder: Path | None) -> Iterator[Sample]:
        """Yield pictures of a folder, or the shipped ones, in several lights and cuts."""
        for frame in calibration_frames(folder):
            yield Sample(self.encode(frame))

    def decode(self, outputs: Tensors, context: object) -> Sequence[Prediction]:
        """Rank the classes by their softmax probability."""
        return ranked(self.labels, outputs["logits"])

    def measure(self, outputs: Tensors, targets: Tensors) -> Metrics:
        """Return accuracy (0..1) and the mean cross entropy in nats."""
        return {"accuracy": accuracy(outputs, targets), "loss": cross_entropy(outputs, targets)}

    def certainty(self, outputs: Tensors, targets: Tensors) -> Certainty:
        """Return the best class of each row with its probability; see Workload."""
        return class_certainty(outputs, targets)

    def own_truth(self, outputs: Tensors, least: Tensor) -> OwnTruth | None:
        """Return the best class if its probability is enough; see Workload."""
        return class_own_truth(outputs, least)


def _centre_square(image: RgbImage, size: int) -> Tensor:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return scaled(image[top : top + side, left : left + side], size, size)
