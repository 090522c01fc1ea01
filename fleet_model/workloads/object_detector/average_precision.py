"""How good boxes are: average precision as COCO defines it (arXiv:1405.0312), with NumPy alone.

Detections of all pictures, from the surest to the least sure, give a curve of precision against
recall for each class. The area below it is the average precision. All numbers are those of
pycocotools; matching.py says which detections are right.

One picture has too few boxes for such a curve of each class: see `picture_scores`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleet_model.types import Tensor
from fleet_model.workloads.object_detector.matching import (
    AREAS,
    MOST,
    THRESHOLDS,
    Found,
    Truth,
    iou,
    judge,
)

__all__ = [
    "AREAS",
    "LIMITS",
    "RECALLS",
    "THRESHOLDS",
    "DetectionScores",
    "Found",
    "Truth",
    "evaluate",
    "iou",
    "picture_scores",
]

RECALLS = np.linspace(0.0, 1.0, 101)  # where precision is read
LIMITS = (1, 10, MOST)  # so many detections of a class in one picture count, for recall


@dataclass(frozen=True, eq=False, slots=True)
class DetectionScores:
    """What detections are worth, 0 to 1. NaN where there is nothing to be found (COCO says -1).

    The axes have the order of AREAS, THRESHOLDS, RECALLS and LIMITS.
    """

    precision: Tensor  # (areas, thresholds, classes, recalls): the best at this recall or above
    recall: Tensor  # (areas, thresholds, classes, limits)
    truths: Tensor  # (areas, classes): boxes that count

    @property
    def map50(self) -> float:
        """Return the mean over classes of the average precision at an overlap of .5."""
        return self.mean_precision(0.5)

    @property
    def map(self) -> float:
        """Return the mean over classes and all thresholds, .5 to .95: COCO's main number."""
        return self.mean_precision()

    def average_precision(self, threshold: float | None = None, area: str = "all") -> Tensor:
        """Return (classes,) average precision at one of THRESHOLDS; None: the mean over all."""
        at = slice(None) if threshold is None else [_index(threshold)]
        return np.asarray(self.precision[_area(area), at].mean(axis=(0, 2)))

    def mean_precision(self, threshold: float | None = None, area: str = "all") -> float:
        """Return the mean of `average_precision` over the classes that have boxes of this area."""
        return _mean(self.average_precision(threshold, area))

    def mean_recall(self, limit: int = MOST, area: str = "all") -> float:
        """Return COCO's average recall: the mean over thresholds and classes, at one of LIMITS."""
        return _mean(self.recall[_area(area), :, :, LIMITS.index(limit)])

    def curve(self, index: int, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
        """Return recall and precision of one class, (101,) each, for a plot."""
        return RECALLS, self.precision[_area("all"), _index(threshold), index]


def evaluate(found: Sequence[Found], truth: Sequence[Truth], classes: int) -> DetectionScores:
    """Return what the detections of all pictures are worth.

    Args:
        found: one entry a picture, also where nothing is found.
        truth: one entry a picture, also where nothing is.
        classes: how many there are.

    Raises:
        ValueError: see `judge`.
    """
    judged = judge(found, truth, classes)
    order = np.lexsort((-judged.scores, judged.classes))  # of equal scores the first picture's
    ends = np.searchsorted(judged.classes[order], np.arange(classes + 1))
    shape = (len(AREAS), len(THRESHOLDS), classes)
    precision = np.full((*shape, len(RECALLS)), np.nan)
    recall = np.full((*shape, len(LIMITS)), np.nan)
    for index in range(classes):
        rows = order[ends[index] : ends[index + 1]]
        for area in np.flatnonzero(judged.of_class[:, index]):
            right, count = judged.right[rows, area], judged.of_class[area, index]
            precision[area, :, index] = _precision(right, judged.wrong[rows, area], count)
            for column, limit in enumerate(LIMITS):
                hits = right[judged.places[rows] < limit].sum(axis=0)
                recall[area, :, index, column] = hits / count
    return DetectionScores(precision, recall, judged.of_class)


def picture_scores(found: Sequence[Found], truth: Sequence[Truth], classes: int) -> Tensor:
    """Return how good each picture's answer is, (pictures,) 0 to 1: for a test over pictures.

    It is the average precision at an overlap of .5 over the boxes of all classes in one ranking, so
    that an unsure detection of a class that is not there costs little behind sure ones that are
    right. Where no box counts it is 1 - the highest score of a detection that is wrong, and 1
    without one: a false alarm costs as much as it is sure, whatever the threshold of an answer.

    Args:
        found: as for `evaluate`; its scores are 0 to 1.
        truth: as for `evaluate`.
        classes: how many there are.

    Raises:
        ValueError: see `judge`.
    """
    judged = judge(found, truth, classes)
    ends = np.searchsorted(judged.pictures, np.arange(len(found) + 1))
    scores = np.ones(len(found))
    for picture in range(len(found)):
        rows = np.arange(ends[picture], ends[picture + 1])
        rows = rows[np.argsort(-judged.scores[rows], kind="stable")]
        right, wrong = judged.right[rows, 0, :1], judged.wrong[rows, 0, :1]
        if judged.of_picture[picture]:
            scores[picture] = _precision(right, wrong, judged.of_picture[picture]).mean()
        else:
            scores[picture] -= judged.scores[rows][wrong[:, 0]].max(initial=0.0)
    return np.clip(scores, 0.0, 1.0)


def _precision(right: Tensor, wrong: Tensor, count: int) -> Tensor:
    """Return (thresholds, recalls) of (n, thresholds) bool, the surest first; `count` to find."""
    hits = np.cumsum(right, axis=0, dtype=np.float64)
    precision = hits / np.maximum(hits + np.cumsum(wrong, axis=0), 1)
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    best = np.vstack([best, np.zeros(best.shape[1])])  # of a recall that is not reached
    places = [np.searchsorted(recall, RECALLS) for recall in (hits / count).T]
    return np.stack([best[place, column] for column, place in enumerate(places)])


def _area(name: str) -> int:
    return list(AREAS).index(name)


def _index(threshold: float) -> int:
    distance = np.abs(THRESHOLDS - threshold)
    if distance.min() > 1e-9:
        listed = ", ".join(f"{value:g}" for value in THRESHOLDS)
        raise ValueError(f"an overlap of {threshold:g}, expected one of {listed}")
    return int(distance.argmin())


def _mean(values: Tensor) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
