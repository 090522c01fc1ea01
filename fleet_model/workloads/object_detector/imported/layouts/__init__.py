"""What the outputs of other tools' detectors mean: one small class for each way to write them.

yolo.py         YOLOX, YOLOv5, YOLOv8 and their successors: a row or a column for each cell
detr.py         DETR, RT-DETR, D-FINE, RF-DETR: a row for each query
listed.py       boxes that are chosen already: TFLite's detection operator, the deployed D-FINE
plain.py        boxes and a score for each class

A new layout is a class here and a line in LAYOUTS.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

from fleet_model.errors import SettingsError
from fleet_model.loading import load_plugin
from fleet_model.types import Tensor, Tensors
from fleet_model.workloads.object_detector.imported.candidates import Candidates
from fleet_model.workloads.object_detector.imported.reading import Color, Fit, Reading

_HERE = "fleet_model.workloads.object_detector.imported.layouts"
LAYOUTS = {
    "yolox": f"{_HERE}.yolo:Yolox",
    "yolox-decoded": f"{_HERE}.yolo:YoloxDecoded",
    "yolov5": f"{_HERE}.yolo:Yolov5",
    "yolov8": f"{_HERE}.yolo:Yolov8",
    "rf-detr": f"{_HERE}.detr:RfDetr",
    "d-fine": f"{_HERE}.listed:DFine",
    "d-fine-logits": f"{_HERE}.detr:DFineLogits",
    "detr": f"{_HERE}.detr:Detr",
    "tflite-postprocess": f"{_HERE}.listed:TFLitePostprocess",
    "boxes-scores": f"{_HERE}.plain:BoxesScores",
}
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # mean and deviation, of 0..255
ONE = ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))  # the picture is given as 0..1
AS_IT_IS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Usual(NamedTuple):
    """How the makers of such files give them pictures, and leave out boxes."""

    scaling: tuple[tuple[float, float, float], tuple[float, float, float]]  # mean, deviation
    fit: Fit
    overlap: float = 1.0  # see Reading; 1: no box goes
    color: Color = "rgb"
    shares: bool = False  # see Reading
    tflite_shares: bool = False  # the same, of .tflite files alone


class Layout(Protocol):
    """One way to write boxes. Built without arguments."""

    words: ClassVar[str]  # whose files are like this
    usual: ClassVar[Usual]

    def roles(self, outputs: Tensors, size: tuple[int, int]) -> dict[str, str] | None:
        """Return role -> name of an output; None: these are no such outputs.

        Args:
            outputs: by name, as the file gives them for a picture, with the batch axis.
            size: width and height of the input, pixels.
        """
        ...

    def is_sure(self, roles: Mapping[str, str]) -> bool:
        """Return whether names say so, where the shapes of another layout are the same."""
        ...

    def columns(self, outputs: Tensors) -> int | None:
        """Return how many classes outputs, by role, have room for; None: that cannot be seen."""
        ...

    def read(self, outputs: Tensors, reading: Reading) -> Candidates:
        """Return the boxes of outputs by role, without the batch axis."""
        ...


def layout_of(name: str) -> Layout:
    """Return a layout by its name; raises SettingsError if there is none.

    A name in a manifest comes over the network: it chooses among these, and names no module.
    """
    if name not in LAYOUTS:
        raise SettingsError(f"there is no layout {name[:40]!r}; choose {', '.join(LAYOUTS)}")
    made: Layout = load_plugin(LAYOUTS, name)()
    return made


def in_pixels(boxes: Tensor, reading: Reading) -> Tensor:
    """Return corners, (n, 4), in pixels of the input."""
    return boxes * ([reading.width, reading.height] * 2) if reading.shares else boxes
