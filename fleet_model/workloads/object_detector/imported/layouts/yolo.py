"""Detectors with a row or a column of numbers for each cell of three maps."""

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

import numpy as np

from fleet_model.types import Tensor, Tensors
from fleet_model.workloads.object_detector.imported.candidates import (
    Candidates,
    each_best,
    from_middles,
)
from fleet_model.workloads.object_detector.imported.layouts import (
    AS_IT_IS,
    ONE,
    Usual,
    in_pixels,
)
from fleet_model.workloads.object_detector.imported.reading import Reading

STRIDES = (8, 16, 32)  # pixels of the input that a cell covers
ROWS = "rows"


class Yolox:
    """(1, cells, 5 + classes): x, y, log w, log h in cells, how sure of a thing, of each class.

    Scores are shares already. Middle = (x, y + the cell's corner) * stride, sides = exp * stride:
    Ge et al. 2021, arXiv:2107.08430, and the demo of its ONNX files, which gives B, G, R 0..255
    with the frame in the upper left corner, and leaves out boxes at an overlap of .45.
    """

    words: ClassVar[str] = "YOLOX"
    usual: ClassVar[Usual] = Usual(AS_IT_IS, "corner", 0.45, "bgr")

    def roles(self, outputs: Tensors, size: tuple[int, int]) -> dict[str, str] | None:
        """Return the one output; see Layout."""
        return _rows(outputs, cells(size), 5)

    def is_sure(self, roles: Mapping[str, str]) -> bool:
        """Return that this is what such rows are, unless somebody says otherwise."""
        return True

    def columns(self, outputs: Tensors) -> int | None:
        """Return what comes behind the first five."""
        return int(outputs[ROWS].shape[-1]) - 5

    def read(self, outputs: Tensors, reading: Reading) -> Candidates:
        """Return a box of each cell; see Layout."""
        rows = outputs[ROWS].astype(np.float32)  # (cells, 5 + classes)
        corners, strides = _grid(reading.width, reading.height)
        middles = (rows[:, :2] + corners) * strides
        with np.errstate(over="ignore"):  # a box without end is cut off at the edges
            sides = np.exp(rows[:, 2:4]) * strides
        boxes = from_middles(np.concatenate([middles, sides], axis=1))
        return each_best(boxes, rows[:, 4:5] * rows[:, 5:])


class YoloxDecoded(Yolox):
    """The same with boxes in pixels: YOLOX files of `--decode_in_inference`."""

    words: ClassVar[str] = "YOLOX, exported with --decode_in_inference"

    def is_sure(self, roles: Mapping[str, str]) -> bool:
        """Return that nothing but a person says so."""
        return False

    def read(self, outputs: Tensors, reading: Reading) -> Candidates:
        """Return a box of each row: x, y of the middle, width, height."""
        rows = outputs[ROWS].astype(np.float32)
        boxes = in_pixels(from_middles(rows[:, :4]), reading)
        return each_best(boxes, rows[:, 4:5] * rows[:, 5:])


class Yolov5(YoloxDecoded):
    """Three rows for each cell, (1, 3 * cells, 5 + classes), of pictures 0..1 in the middle."""

    words: ClassVar[str] = "YOLOv5"
    usual: ClassVar[Usual] = Usual(ONE, "letterbox", 0.45)

    def roles(self, outputs: Tensors, size: tuple[int, int]) -> dict[str, str] | None:
        """Return the one output; see Layout."""
        return _rows(outputs, 3 * cells(size), 5)

    def is_sure(self, roles: Mapping[str, str]) -> bool:
        """Return that no other layout has such rows."""
        return True


class Yolov8:
    """(1, 4 + classes, cells): a column for each cell, x, y, width, height, then class scores.

    Of YOLOv8, 9, 11 and others with the same head. Their .onnx files have pixels and their .tflite
    files shares of the input.
    """

    words: ClassVar[str] = "YOLOv8, YOLOv9, YOLO11"
    usual: ClassVar[Usual] = Usual(ONE, "letterbox", 0.7, tflite_shares=True)

    def roles(self, outputs: Tensors, size: tuple[int, int]) -> dict[str, str] | None:
        """Return the one output; see Layout."""
        turned = {n: t.swapaxes(1, 2) if t.ndim == 3 else t for n, t in outputs.items()}
        return _rows(turned, cells(size), 4)

    def is_sure(self, roles: Mapping[str, str]) -> bool:
        """Return that no other layout has such columns."""
        return True

    def columns(self, outputs: Tensors) -> int | None:
        """Return what comes behind the first four."""
        return int(outputs[ROWS].shape[-2]) - 4

    def read(self, outputs: Tensors, reading: Reading) -> Candidates:
        """Return a box of each cell; see Layout."""
        rows = outputs[ROWS].astype(np.float32).T  # (cells, 4 + classes)
        return each_best(in_pixels(from_middles(rows[:, :4]), reading), rows[:, 4:])


def cells(size: tuple[int, int]) -> int:
    """Return how many cells the three maps have together."""
    return sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)


def _rows(outputs: Tensors, count: int, before: int) -> dict[str, str] | None:
    """Return the one output of (1, count, more than `before`)."""
    if len(outputs) != 1:
        return None
    name, tensor = next(iter(outputs.items()))
    fits = tensor.ndim == 3 and tensor.shape[1] == count and tensor.shape[2] > before
    return {ROWS: name} if fits else None


@lru_cache(maxsize=4)
def _grid(width: int, height: int) -> tuple[Tensor, Tensor]:
    """Return the corner of each cell in cells, (cells, 2), and its stride in pixels, (cells, 1)."""
    corners, strides = [], []
    for stride in STRIDES:
        x, y = np.meshgrid(np.arange(width // stride), np.arange(height // stride))
        corners.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(strides).astype(np.float32)
