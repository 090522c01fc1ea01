"""The workload of a detector that another tool has trained: robots run it, and nobody trains it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fleet_model.bundle import Task, TensorSpec
from fleet_model.errors import SettingsError
from fleet_model.types import (
    Encoded,
    Example,
    Frame,
    Metrics,
    Prediction,
    Target,
    Tensor,
    Tensors,
    TrainConfig,
)
from fleet_model.workload import Certainty, Details, OwnTruth, Sample
from fleet_model.workloads.image_classifier.calibration import calibration_frames
from fleet_model.workloads.object_detector.detector import NOTHING, ObjectDetector, size_of
from fleet_model.workloads.object_detector.imported.fitted import Fitted
from fleet_model.workloads.object_detector.imported.reading import read_reading
from fleet_model.workloads.object_detector.imported.stage import ImportedStage
from fleet_model.workloads.object_detector.letterbox import Letterbox


class ImportedDetector:
    """What boxes mean is as in the fleet's own detector; the picture is given as the file takes it.

    Targets and measures are those of `ObjectDetector` in pixels of the file's input: overlaps are
    the same in any pixels, and which things are too small to count is what the fleet says.
    """

    raw_kind = ObjectDetector.raw_kind
    input_ranges = ObjectDetector.input_ranges
    sure_score = ObjectDetector.sure_score

    def __init__(self, labels: Sequence[str], image_size: int, reading: Mapping[str, Any]) -> None:
        """Say what is looked for, and how the file is read.

        Args:
            labels: of the fleet.
            image_size: of the fleet's own detector.
            reading: fields of Reading.

        Raises:
            SettingsError: one of them is wrong.
        """
        self._fleet = ObjectDetector(labels, image_size)
        self.reading = read_reading(reading)
        if max(self.reading.classes) >= len(self._fleet.labels):
            raise SettingsError(f"reading: classes name a label beyond {', '.join(labels)}")

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the fleet's labels."""
        return self._fleet.labels

    @property
    def task(self) -> Task:
        """R, G, B 0..255 goes in, the fleet's own kind of answer comes out."""
        picture = TensorSpec(shape=(self.reading.height, self.reading.width, 3))
        return self._fleet.task.model_copy(update={"inputs": {"image": picture}})

    @property
    def training(self) -> TrainConfig:
        """Return what the fleet trains its own model with."""
        return self._fleet.training

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the keyword arguments that rebuild this workload."""
        config = {name: self._fleet.config[name] for name in ("labels", "image_size")}
        return {**config, "reading": self.reading.model_dump(mode="json")}

    def open_stage(self, path: Path, num_threads: int) -> ImportedStage:
        """Return the file as a stage; raises BundleError. See Workload."""
        return ImportedStage(path, num_threads, self.reading, self.task)

    def encode(self, raw: Frame) -> Encoded:
        """Decode a frame and fit it into the input: (height, width, 3) float32 0..255."""
        size = self.reading.width, self.reading.height
        picture = raw.reduced(max(size)) if raw.reduced and raw.width else raw.decode()
        frame = (raw.width, raw.height) if raw.width else picture.shape[1::-1]
        fitted = Fitted.of(self.reading.fit, (frame[0], frame[1]), size)
        image = fitted.picture(picture, size, self.reading.gray).astype(np.float32)
        return Encoded(inputs={"image": image}, context=fitted)

    def target(self, example: Example) -> Target:
        """Return the boxes of an example as they lie in the input; see ObjectDetector."""
        truth = self._fleet.target(example)
        width, height = size_of(example.raw)
        square = Letterbox.of(width, height, self._fleet.image_size)
        size = self.reading.width, self.reading.height
        fitted = Fitted.of(self.reading.fit, (width, height), size)
        boxes = np.zeros_like(truth.tensors["box"])
        there = truth.tensors["class"] != NOTHING
        boxes[there] = fitted.inside(square.outside(truth.tensors["box"][there]))
        return Target(tensors={"box": boxes, "class": truth.tensors["class"]}, weight=truth.weight)

    def samples(self, folder: Path | None) -> Iterator[Sample]:
        """Yield pictures of a folder, or the shipped ones, in several lights and cuts."""
        for frame in calibration_frames(folder):
            yield Sample(self.encode(frame))

    def decode(self, outputs: Tensors, context: Fitted) -> Sequence[Prediction]:
        """Return the boxes in pixels of the frame, best first."""
        return self._fleet.decode(outputs, context)

    def measure(self, outputs: Tensors, targets: Tensors) -> Metrics:
        """Return mean average precision; see ObjectDetector."""
        return self._fleet.measure(outputs, targets)

    def measure_each(self, outputs: Tensors, targets: Tensors) -> Tensor:
        """Return how good the boxes of each picture are, (pictures,) 0 to 1."""
        return self._fleet.measure_each(outputs, targets)

    @property
    def finds(self) -> tuple[str, ...]:
        """Return the labels that the file can find; see Workload."""
        known = set(self.reading.classes)
        return tuple(name for index, name in enumerate(self.labels) if index in known)

    def certainty(self, outputs: Tensors, targets: Tensors) -> Certainty:
        """Return every box that counts, with its score; see ObjectDetector."""
        return self._fleet.certainty(outputs, targets)

    def own_truth(self, outputs: Tensors, least: Tensor) -> OwnTruth | None:
        """Return the boxes, in pixels of the input, if all are sure; see ObjectDetector."""
        return self._fleet.own_truth(outputs, least)

    def details(self, outputs: Tensors, targets: Tensors) -> Details:
        """Return the average precision of each class, and precision against recall."""
        return self._fleet.details(outputs, targets)
