"""Which detections are right: each takes the box that it overlaps most, as COCO defines it.

Detections of a picture are taken from the surest to the least sure. Each one takes the box of its
class that overlaps it most, if that is enough and none before has it. Results are those of
pycocotools, to the last tie.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fleet_model.types import Tensor

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the overlap (IoU) that makes a detection right
MOST = 100  # detections of a class in one picture; the least sure ones beyond that are dropped
# Square pixels, both ends included.
AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


class Found(NamedTuple):
    """What a model finds in one picture, in any order. Of equal scores the first comes first."""

    boxes: Tensor  # (n, 4) x0, y0, x1, y1 in pixels
    scores: Tensor  # (n,) the higher the surer
    classes: Tensor  # (n,) whole numbers from 0


class Truth(NamedTuple):
    """What is in one picture. A box that does not count need not be found, and may be."""

    boxes: Tensor  # (n, 4) as in Found
    classes: Tensor  # (n,) as in Found
    # (n,) bool: many things under one box (`iscrowd`). It does not count, takes any number of
    # detections, and a detection overlaps it by the share of its own area. None: no box is one.
    crowd: Tensor | None = None
    ignored: Tensor | None = None  # (n,) bool: does not count, and takes one detection. None: none
    areas: Tensor | None = None  # (n,) square pixels of the things; None: those of the boxes


class Judged(NamedTuple):
    """Detections by picture and class, the surest first. Those that are right or wrong count.

    The axes have the order of AREAS and THRESHOLDS.
    """

    pictures: Tensor  # (n,)
    classes: Tensor  # (n,)
    scores: Tensor  # (n,)
    places: Tensor  # (n,) from 0, in its picture and class
    right: Tensor  # (n, areas, thresholds) bool
    wrong: Tensor  # (n, areas, thresholds) bool
    of_class: Tensor  # (areas, classes): boxes that count
    of_picture: Tensor  # (pictures,): boxes of any area and class that count


class _Pairs(NamedTuple):
    """Detections and boxes of their class that overlap enough: by detection, the best pair last."""

    detections: Tensor  # (pairs,) index
    truths: Tensor  # (pairs,) index
    overlaps: Tensor  # (pairs,)


class _Rows(NamedTuple):
    """The boxes of all pictures, one after the other."""

    pictures: Tensor  # (n,)
    classes: Tensor  # (n,)
    boxes: Tensor  # (n, 4)
    numbers: Tensor  # (n,) scores or areas

    def begins(self, pictures: int) -> Tensor:
        """Return (pictures + 1,): where each picture begins, and the end."""
        return np.searchsorted(self.pictures, np.arange(pictures + 1))


def judge(found: Sequence[Found], truth: Sequence[Truth], classes: int) -> Judged:
    """Find out which detections are right, in each range of areas and at each threshold.

    Args:
        found: one entry a picture, also where nothing is found.
        truth: one entry a picture, also where nothing is.
        classes: how many there are.

    Raises:
        ValueError: the two have not the same length, a class is out of range, shapes do not fit, or
            a score or corner is no number.
    """
    if len(found) != len(truth):
        raise ValueError(f"detections of {len(found)} pictures, truth of {len(truth)}")
    mine = _laid_out([(one.boxes, one.scores, one.classes) for one in found], classes, "scores")
    order = np.lexsort((-mine.numbers, mine.classes, mine.pictures))
    groups = (mine.pictures * classes + mine.classes)[order]
    places = _places(groups)
    kept = places < MOST
    groups, places = groups[kept], places[kept]
    mine = _Rows(*(column[order[kept]] for column in mine))

    theirs = _laid_out([(one.boxes, one.areas, one.classes) for one in truth], classes, "areas")
    crowd = _flags([(one.crowd, len(one.classes)) for one in truth])
    ignored = crowd | _flags([(one.ignored, len(one.classes)) for one in truth])
    ignored = ignored[:, None] | _outside(theirs.numbers)  # (truths, areas)
    pairs = _pairs(mine, theirs, crowd, len(found))
    taken, aside = _matched(pairs, groups, ignored, crowd)
    aside |= ~taken & _outside(area_of(mine.boxes))[:, :, None]
    return Judged(
        *(mine.pictures, mine.classes, mine.numbers, places),
        right=taken & ~aside,
        wrong=~(taken | aside),
        of_class=np.stack(
            [np.bincount(theirs.classes[~each], minlength=classes) for each in ignored.T]
        ),
        of_picture=np.bincount(theirs.pictures[~ignored[:, 0]], minlength=len(found)),
    )


def iou(boxes: Tensor, others: Tensor, crowd: Tensor | None = None) -> Tensor:
    """Return (n, m): the area that two boxes share by that of both together.

    Args:
        boxes: (n, 4) x0, y0, x1, y1.
        others: (m, 4).
        crowd: (m,) bool: by that of the first box alone.
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = high - low
    shared = np.where((sides > 0).all(axis=-1), sides[..., 0] * sides[..., 1], 0.0)
    mine = area_of(boxes)[:, None]
    union = mine + area_of(others) - shared
    if crowd is not None:
        union = np.where(crowd, mine, union)
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0))


def area_of(boxes: Tensor) -> Tensor:
    """Return (n,) square pixels."""
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def _pairs(mine: _Rows, theirs: _Rows, crowd: Tensor, pictures: int) -> _Pairs:
    """Return what may match at the lowest threshold."""
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    ends, other_ends = mine.begins(pictures), theirs.begins(pictures)
    for picture in np.intersect1d(mine.pictures, theirs.pictures):
        here = slice(ends[picture], ends[picture + 1])
        there = slice(other_ends[picture], other_ends[picture + 1])
        overlaps = iou(mine.boxes[here], theirs.boxes[there], crowd[there])
        same = mine.classes[here, None] == theirs.classes[there]
        rows, columns = np.nonzero(same & (overlaps >= THRESHOLDS[0]))
        parts.append((rows + here.start, columns + there.start, overlaps[rows, columns]))
    detections, truths, overlaps = map(np.concatenate, zip(*parts, strict=True))
    order = np.lexsort((truths, overlaps, detections))
    return _Pairs(detections[order], truths[order], overlaps[order])


def _matched(
    pairs: _Pairs, groups: Tensor, ignored: Tensor, crowd: Tensor
) -> tuple[Tensor, Tensor]:
    """Let each detection take a box: in turn, all pictures and classes side by side.

    Args:
        pairs: what may match.
        groups: (detections,) the picture and class of each.
        ignored: (truths, areas) bool: does not count.
        crowd: (truths,) bool.

    Returns:
        (detections, areas, thresholds) bool, twice: has one, and has one that does not count.
    """
    shape = (len(AREAS), len(THRESHOLDS))
    matched, aside = np.zeros((2, len(groups), *shape), bool)
    taken = np.zeros((len(ignored), *shape), bool)
    firsts = np.flatnonzero(np.diff(pairs.detections, prepend=-1))  # pair of each detection
    turns = _places(groups[pairs.detections[firsts]])
    turns = np.repeat(turns, np.diff(firsts, append=len(pairs.detections)))  # of each pair
    for turn in range(turns.max(initial=-1) + 1):
        rows = np.flatnonzero(turns == turn)
        truths, detections = pairs.truths[rows], pairs.detections[rows]
        begins = np.flatnonzero(np.diff(detections, prepend=-1))
        free = ~taken[truths] | crowd[truths, None, None]
        free &= pairs.overlaps[rows, None, None] >= THRESHOLDS
        # Later pairs overlap more. A box that counts goes before all that do not.
        value = rows[:, None] + len(turns) * ~ignored[truths]  # (rows, areas)
        best = np.maximum.reduceat(np.where(free, value[:, :, None], -1), begins)
        which, area, threshold = np.nonzero(best >= 0)
        chosen = pairs.truths[best[which, area, threshold] % len(turns)]
        taken[chosen, area, threshold] = True
        which = detections[begins][which]
        matched[which, area, threshold] = True
        aside[which, area, threshold] = ignored[chosen, area]
    return matched, aside


def _laid_out(
    pictures: Sequence[tuple[Tensor, Tensor | None, Tensor]], classes: int, what: str
) -> _Rows:
    """Return (boxes, scores or areas, classes) of all pictures in one; no areas: of the boxes."""
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))]
    for index, (given_boxes, given, given_classes) in enumerate(pictures):
        boxes = np.asarray(given_boxes, np.float64).reshape(-1, 4)
        numbers = area_of(boxes) if given is None else np.asarray(given, np.float64).reshape(-1)
        kinds = np.asarray(given_classes).reshape(-1)
        if not len(boxes) == len(numbers) == len(kinds):
            each = f"{len(boxes)} boxes, {len(numbers)} {what}, {len(kinds)} classes"
            raise ValueError(f"picture {index} has {each}; expected as many of each")
        if not (np.isfinite(boxes).all() and np.isfinite(numbers).all()):
            raise ValueError(f"picture {index}: one of its boxes or {what} is no number")
        if not np.isin(kinds, np.arange(classes)).all():
            raise ValueError(f"picture {index}: a class is not one of 0 to {classes - 1}")
        parts.append((np.full(len(boxes), index), kinds.astype(np.int64), boxes, numbers))
    return _Rows(*map(np.concatenate, zip(*parts, strict=True)))


def _flags(pictures: Sequence[tuple[Tensor | None, int]]) -> Tensor:
    """Return the flags of all boxes in one; None stands for so many that are not set."""
    parts = [np.zeros(0, bool)]
    for index, (given, count) in enumerate(pictures):
        flags = np.zeros(count, bool) if given is None else np.asarray(given, bool).reshape(-1)
        if len(flags) != count:
            raise ValueError(f"picture {index} has {len(flags)} flags, {count} classes")
        parts.append(flags)
    return np.concatenate(parts)


def _places(groups: Tensor) -> Tensor:
    """Return the place of each in its group, from 0; equal groups stand side by side."""
    begins = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.arange(len(groups)) - np.repeat(begins, np.diff(begins, append=len(groups)))


def _outside(areas: Tensor) -> Tensor:
    """Return (n, ranges) bool: whether each area lies outside each range."""
    low, high = np.array(list(AREAS.values())).T
    return np.asarray((areas[:, None] < low) | (areas[:, None] > high))
