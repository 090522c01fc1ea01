"""Boxes as a file gives them, and the few of them that are an answer."""

from typing import NamedTuple

import numpy as np

from fleet_model.types import Tensor, Tensors

LEAST_SCORE = 0.001  # COCO's own tools measure down to about this
MOST = 1000  # the surest ones, before those go that overlap a better one


class Candidates(NamedTuple):
    """Boxes of one picture, in any order."""

    boxes: Tensor  # (n, 4) x0, y0, x1, y1 in pixels of the input
    scores: Tensor  # (n,) 0..1
    classes: Tensor  # (n,) int: the file's own class

    def surest(self, most: int = MOST) -> "Candidates":
        """Return those that are sure at all, at most so many, the surest first."""
        kept = np.flatnonzero(self.scores >= LEAST_SCORE)
        order = kept[np.argsort(-self.scores[kept], kind="stable")[:most]]
        return Candidates(self.boxes[order], self.scores[order], self.classes[order])


def each_best(boxes: Tensor, scores: Tensor) -> Candidates:
    """Return every box with its best class; `scores` are (n, classes)."""
    classes = np.argmax(scores, axis=1)
    return Candidates(boxes, np.take_along_axis(scores, classes[:, None], 1)[:, 0], classes)


def best_pairs(boxes: Tensor, scores: Tensor, most: int = 300) -> Candidates:
    """Return the surest pairs of a box and a class: a box may come with two."""
    flat = scores.ravel()
    chosen = np.argsort(-flat, kind="stable")[:most]
    return Candidates(boxes[chosen // scores.shape[1]], flat[chosen], chosen % scores.shape[1])


def from_middles(boxes: Tensor) -> Tensor:
    """Turn x, y of the middle, width and height, (n, 4), into corners."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def without_overlaps(found: Candidates, overlap: float, most: int) -> Candidates:
    """Leave out boxes that a surer one of their class overlaps: greedy non-maximum suppression.

    Args:
        found: the surest first.
        overlap: IoU above which the less sure one goes.
        most: so many are enough.
    """
    boxes = found.boxes.astype(np.float64)
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    left, kept = np.arange(len(boxes)), list[int]()
    while left.size and len(kept) < most:
        best, rest = int(left[0]), left[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        both = np.prod(np.maximum(high - low, 0), axis=1)
        either = area[best] + area[rest] - both
        same = found.classes[rest] == found.classes[best]
        left = rest[~(same & (both > overlap * either))]
    return Candidates(found.boxes[kept], found.scores[kept], found.classes[kept])


def as_answer(found: Candidates, rows: int, size: tuple[int, int]) -> Tensors:
    """Return the tensors that a detector of this fleet answers; rows without a box have score 0.

    Args:
        found: at most `rows`, with the fleet's own classes.
        rows: of each tensor.
        size: width and height of the input: boxes are cut off at its edges.
    """
    count = len(found.scores)
    boxes, scores = np.zeros((rows, 4), np.float32), np.zeros(rows, np.float32)
    classes = np.zeros(rows, np.int32)
    boxes[:count] = np.clip(found.boxes, 0, [*size, *size])
    scores[:count] = np.clip(found.scores, 0, 1)
    classes[:count] = found.classes
    return {"boxes": boxes, "scores": scores, "classes": classes}
