"""Boxes and a score for each class, without any convention of their own."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fleet_model.types import Tensors
from fleet_model.workloads.object_detector.imported.candidates import Candidates, each_best
from fleet_model.workloads.object_detector.imported.layouts import ONE, Usual, in_pixels
from fleet_model.workloads.object_detector.imported.layouts.detr import BOXES, boxes_and
from fleet_model.workloads.object_detector.imported.reading import Reading

SCORES = "scores"


class BoxesScores:
    """Boxes (1, n, 4) x0, y0, x1, y1 and scores (1, n, classes) 0..1: what a small wrapper writes.

    YOLO-NAS and DAMO-YOLO export this, too, with boxes in pixels.
    """

    words: ClassVar[str] = "boxes x0, y0, x1, y1, and a score 0..1 for each class"
    usual: ClassVar[Usual] = Usual(ONE, "letterbox", 0.5)

    def roles(self, outputs: Tensors, size: tuple[int, int]) -> dict[str, str] | None:
        """Return both outputs; see Layout."""
        return boxes_and(SCORES, outputs)

    def is_sure(self, roles: Mapping[str, str]) -> bool:
        """Return whether a name says that these are scores, and no logits."""
        name = roles[SCORES].lower()
        return "score" in name or "prob" in name

    def columns(self, outputs: Tensors) -> int | None:
        """Return the columns of the scores."""
        return int(outputs[SCORES].shape[-1])

    def read(self, outputs: Tensors, reading: Reading) -> Candidates:
        """Return each box with its best class."""
        boxes = in_pixels(outputs[BOXES].astype(np.float32), reading)
        return each_best(boxes, outputs[SCORES].astype(np.float32))
