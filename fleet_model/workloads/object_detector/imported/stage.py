"""The file of another tool as the one stage of an engine: a picture in, this fleet's boxes out."""

from pathlib import Path

import numpy as np

from fleet_model.bundle import Task
from fleet_model.errors import BundleError
from fleet_model.foreign import open_file
from fleet_model.signatures import FEATURES, INPUTS, OUTPUTS, only, signature_names
from fleet_model.types import Tensor, Tensors
from fleet_model.workloads.object_detector.imported.candidates import (
    Candidates,
    as_answer,
    without_overlaps,
)
from fleet_model.workloads.object_detector.imported.layouts import layout_of
from fleet_model.workloads.object_detector.imported.reading import Reading


class ImportedStage:
    """An `EngineStage`: what the file takes and gives is between its own names and the task's."""

    def __init__(self, path: Path, num_threads: int, reading: Reading, task: Task) -> None:
        """Load the file.

        Raises:
            BundleError: what runs it is not here, or it has other tensors than the reading says.
        """
        self.name = path.name
        self._reading, self._layout = reading, layout_of(reading.layout)
        shapes = {reading.image: shape_of(reading)}
        if reading.size_input:
            shapes[reading.size_input] = (1, 2)
        self._file = open_file(path, num_threads, shapes)
        known = {reading.image, *filter(None, [reading.size_input])}
        missing = sorted(set(reading.outputs.values()) - self._file.outputs.keys())
        if set(self._file.inputs) != known or missing:
            raise BundleError(
                f"{self.name}: takes {', '.join(self._file.inputs)} and gives "
                f"{', '.join(self._file.outputs)}, expected {', '.join(sorted(known))} and "
                f"{', '.join(reading.outputs.values())}; import it again"
            )
        takes = signature_names(INPUTS, task.inputs, only(task.inputs) or FEATURES)
        gives = signature_names(OUTPUTS, task.outputs, only(task.outputs) or FEATURES)
        self.inputs = {takes[n]: tuple(spec.shape) for n, spec in task.inputs.items()}
        self.outputs = {gives[n]: tuple(spec.shape) for n, spec in task.outputs.items()}
        self._taken, self._given = next(iter(self.inputs)), gives
        self._rows = task.outputs["scores"].shape[0]

    def __call__(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return the answer for one picture: (height, width, 3) R, G, B 0..255."""
        answer = self.answer(tensors[self._taken])
        return {self._given[name]: tensor for name, tensor in answer.items()}

    def answer(self, picture: Tensor) -> dict[str, Tensor]:
        """Return the same by the names that the task has for it."""
        reading = self._reading
        found = self.candidates(picture)
        found = _as_labels(found, reading.classes).surest()
        found = without_overlaps(found, reading.overlap, self._rows)
        return dict(as_answer(found, self._rows, (reading.width, reading.height)))

    def candidates(self, picture: Tensor) -> Candidates:
        """Return all that the file finds in one picture, with its own classes; see `raw`."""
        return self._layout.read(self.raw(picture), self._reading)

    def raw(self, picture: Tensor) -> dict[str, Tensor]:
        """Return the file's outputs by role, without the batch axis.

        Raises:
            BundleError: it fails, or gives what is no number.
        """
        values = self._file(as_input(picture, self._reading))
        outputs = {role: values[name] for role, name in self._reading.outputs.items()}
        for role, tensor in outputs.items():
            if np.isnan(tensor).any():
                name = self._reading.outputs[role]
                raise BundleError(f"{self.name}: its output {name} is no number for some picture")
        return {role: tensor[0] for role, tensor in outputs.items()}


def shape_of(reading: Reading) -> tuple[int, ...]:
    """Return the shape of the input that takes the picture."""
    height, width = reading.height, reading.width
    return (1, 3, height, width) if reading.channels_first else (1, height, width, 3)


def as_input(picture: Tensor, reading: Reading) -> dict[str, Tensor]:
    """Return what the file is given for a picture, (height, width, 3) R, G, B 0..255."""
    pixels = picture[..., ::-1] if reading.color == "bgr" else picture
    values: Tensor = np.asarray(pixels, np.float32)
    if reading.mean != (0.0, 0.0, 0.0) or reading.std != (1.0, 1.0, 1.0):
        values = (values - np.array(reading.mean, np.float32)) / np.array(reading.std, np.float32)
    dtype = np.dtype(reading.dtype)
    if dtype.kind in "iu":
        if reading.scale:
            values = values / np.float32(reading.scale) + reading.zero
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    if reading.channels_first:
        values = values.transpose(2, 0, 1)
    given = {reading.image: np.ascontiguousarray(values[None].astype(dtype, copy=False))}
    if reading.size_input:
        given[reading.size_input] = np.array([[reading.width, reading.height]], np.int64)
    return given


def _as_labels(found: Candidates, classes: tuple[int, ...]) -> Candidates:
    """Return those of the file's classes that are labels of the fleet, with the fleet's index."""
    table = np.array(classes)
    known = (found.classes >= 0) & (found.classes < len(table))
    mapped = np.where(known, table[np.clip(found.classes, 0, len(table) - 1)], -1)
    kept = mapped >= 0
    return Candidates(found.boxes[kept], found.scores[kept], mapped[kept])
