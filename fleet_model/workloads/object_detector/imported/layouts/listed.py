"""Boxes that the file has chosen itself: each comes with one class and one score."""

import re
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fleet_model.types import Tensors
from fleet_model.workloads.object_detector.imported.candidates import Candidates
from fleet_model.workloads.object_detector.imported.layouts import ONE, Usual, in_pixels
from fleet_model.workloads.object_detector.imported.reading import Reading

BOXES, CLASSES, SCORES, COUNT = "boxes", "classes", "scores", "count"
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


class TFLitePostprocess:
    """Boxes (1, n, 4) as shares y0, x0, y1, x1, classes (1, n), scores (1, n), how many (1,).

    What the operator TFLite_Detection_PostProcess gives: SSD and EfficientDet-Lite. TensorFlow 1
    numbers the four in this order and TensorFlow 2 in the opposite one (tensorflow/models#10970),
    so names with numbers are put in order first. Pictures that are no bytes are given as -1..1.
    """

    words: ClassVar[str] = "EfficientDet-Lite, SSD MobileNet: TFLite's four detection outputs"
    usual: ClassVar[Usual] = Usual(((127.5,) * 3, (127.5,) * 3), "stretch", shares=True)

    def roles(self, outputs: Tensors, size: tuple[int, int]) -> dict[str, str] | None:
        """Return all four; see Layout."""
        if sorted(tensor.ndim for tensor in outputs.values()) not in ([1, 2, 2, 3], [2, 2, 2, 3]):
            return None
        boxes = [n for n, t in outputs.items() if t.ndim == 3 and t.shape[2] == 4]
        counts = [n for n, t in outputs.items() if t.size == 1]
        rest = [n for n in outputs if n not in (*boxes, *counts)]
        if len(boxes) != 1 or len(counts) != 1 or len(rest) != 2:
            return None
        if any(outputs[name].shape[1] != outputs[boxes[0]].shape[1] for name in rest):
            return None
        classes, scores = _classes_first(rest, boxes[0], list(outputs))
        return {BOXES: boxes[0], CLASSES: classes, SCORES: scores, COUNT: counts[0]}

    def is_sure(self, roles: Mapping[str, str]) -> bool:
        """Return that no other layout has four outputs."""
        return True

    def columns(self, outputs: Tensors) -> int | None:
        """Return None: classes are numbers in a list."""
        return None

    def read(self, outputs: Tensors, reading: Reading) -> Candidates:
        """Return as many as there are."""
        count = int(np.clip(np.rint(outputs[COUNT].ravel()[0]), 0, len(outputs[SCORES])))
        boxes = outputs[BOXES][:count][:, [1, 0, 3, 2]].astype(np.float32)
        classes = np.rint(outputs[CLASSES][:count]).astype(np.int64)
        scores = outputs[SCORES][:count].astype(np.float32)
        return Candidates(in_pixels(boxes, reading), scores, classes)


class DFine:
    """Labels (1, n), boxes (1, n, 4) x0, y0, x1, y1 in pixels, scores (1, n).

    What D-FINE, RT-DETR and DEIM deploy: a second input, `orig_target_sizes`, says what the pixels
    are of; it is given the input's own width and height. Pictures are 0..1, stretched.
    """

    words: ClassVar[str] = "D-FINE, RT-DETR, DEIM as they deploy (labels, boxes, scores)"
    usual: ClassVar[Usual] = Usual(ONE, "stretch")

    def roles(self, outputs: Tensors, size: tuple[int, int]) -> dict[str, str] | None:
        """Return all three; see Layout."""
        boxes = [n for n, t in outputs.items() if t.ndim == 3 and t.shape[2] == 4]
        rest = [n for n, t in outputs.items() if t.ndim == 2]
        if len(outputs) != 3 or len(boxes) != 1 or len(rest) != 2:
            return None
        whole = [n for n in rest if outputs[n].dtype.kind in "iu"]
        named = [n for n in rest if "label" in n.lower() or "class" in n.lower()]
        classes = whole if len(whole) == 1 else named
        if len(classes) != 1:
            return None
        scores = next(n for n in rest if n != classes[0])
        return {BOXES: boxes[0], CLASSES: classes[0], SCORES: scores}

    def is_sure(self, roles: Mapping[str, str]) -> bool:
        """Return that no other layout has three outputs."""
        return True

    def columns(self, outputs: Tensors) -> int | None:
        """Return None: classes are numbers in a list."""
        return None

    def read(self, outputs: Tensors, reading: Reading) -> Candidates:
        """Return all of them."""
        classes = np.rint(outputs[CLASSES]).astype(np.int64)
        boxes = in_pixels(outputs[BOXES].astype(np.float32), reading)
        return Candidates(boxes, outputs[SCORES].astype(np.float32), classes)


def _classes_first(names: list[str], boxes: str, order: list[str]) -> tuple[str, str]:
    """Return the output with classes, then the one with scores, by their names."""
    told = [name for name in names if "class" in name.lower() or "categor" in name.lower()]
    if len(told) == 1:
        return told[0], next(name for name in names if name != told[0])
    numbers = {n: int(m[1]) for n in order if (m := _LAST_NUMBER.search(n))}
    # A name without a number is that of the operator itself: its first output.
    ranked = sorted(order, key=lambda name: numbers.get(name, 0))
    first, second = sorted(names, key=ranked.index)
    return (first, second) if ranked.index(boxes) == 0 else (second, first)
