"""How unsure a model is of a frame, and how much two answers differ: numbers from 0 to 1."""

from collections.abc import Mapping, Sequence

import numpy as np

from fleet_model.types import Box, Prediction, Tensor

SAME = 0.5  # intersection over union, from which on two boxes are one thing


def uncertainty(found: Sequence[Prediction]) -> float:
    """Return how unsure a model is: 0 is certain, 1 could not be less certain.

    Of classes 1 - (p1 - p2), by the two best scores (Joshi, Porikli and Papanikolopoulos, CVPR
    2009): few labels leave all scores close, and entropy then says the same of every frame. Of
    boxes the mean of 1 - |2 s - 1|, where s is a box's score. A model that finds nothing at all is
    taken as certain.
    """
    boxes = [one for one in found if one.box is not None]
    if boxes:
        return sum(1 - abs(2 * one.score - 1) for one in boxes) / len(boxes)
    scores = sorted((one.score for one in found if one.label), reverse=True)
    if not scores:
        return 0.0
    return min(1.0, max(0.0, 1 - scores[0] + sum(scores[1:2])))


def scores_of(found: Sequence[Prediction], classes: Sequence[str]) -> Tensor:
    """Return the highest score of each class in what a model found: (classes,) float32, 0..1."""
    best = dict.fromkeys(classes, 0.0)
    for one in found:
        if one.label in best:
            best[one.label] = max(best[one.label], one.score)
    return np.fromiter(best.values(), np.float32, len(best))


def disagreement(one: Sequence[Prediction], other: Sequence[Prediction]) -> float:
    """Return how much two models differ.

    Of classes half the sum of the differences of their scores; of boxes the share that has no
    counterpart.
    """
    boxes = [[p for p in found if p.box is not None] for found in (one, other)]
    if any(boxes):
        return 1 - box_agreement(*([_as_box(p) for p in found] for found in boxes))
    first, second = (_scores(found) for found in (one, other))
    return sum(abs(first.get(n, 0) - second.get(n, 0)) for n in first.keys() | second.keys()) / 2


def value(unsure: float, differ: float) -> float:
    """Return what a label of a frame is worth: either reason is enough, both are more."""
    return 1 - (1 - unsure) * (1 - differ)


def box_agreement(one: Sequence[Box], other: Sequence[Box]) -> float:
    """Return the share of boxes of both sides that have a counterpart of the same label.

    The pairs that overlap most are taken first; at least SAME of their union must be shared.
    Nothing on both sides is agreement, too.
    """
    if not one and not other:
        return 1.0
    pairs = sorted(
        (
            (overlap(a, b), -i, -k)
            for i, a in enumerate(one)
            for k, b in enumerate(other)
            if a.label == b.label
        ),
        reverse=True,
    )
    left, right = set[int](), set[int]()
    for shared, i, k in pairs:
        if shared >= SAME and i not in left and k not in right:
            left.add(i)
            right.add(k)
    return 2 * len(left) / (len(one) + len(other))


def overlap(one: Box, other: Box) -> float:
    """Return the intersection of two boxes as a share of their union."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(one) + _area(other) - shared)


def agreement(
    found: Sequence[Prediction], label: str, boxes: Sequence[Box], *, of_boxes: bool
) -> float:
    """Return how much a model said the same as a person: 0 or 1 for a class, a share for boxes."""
    if of_boxes:
        return box_agreement(proposed_boxes(found), boxes)
    return float(bool(found) and found[0].label == label)


def proposed_boxes(found: Sequence[Prediction]) -> list[Box]:
    """Return the boxes among predictions."""
    return [_as_box(one) for one in found if one.box is not None]


def _as_box(one: Prediction) -> Box:
    assert one.box is not None
    x0, y0, x1, y1 = one.box
    return Box(label=one.label, x0=x0, y0=y0, x1=x1, y1=y1)


def _area(box: Box) -> float:
    return (box.x1 - box.x0) * (box.y1 - box.y0)


def _scores(found: Sequence[Prediction]) -> Mapping[str, float]:
    return {one.label: one.score for one in found if one.box is None}
