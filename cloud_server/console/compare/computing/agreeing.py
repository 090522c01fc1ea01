"""How much two answers to the same input agree."""

from collections.abc import Sequence

from fleet_model.types import Prediction

SAME = 0.5  # intersection over union, from which on two boxes are one thing


def agreement(one: Sequence[Prediction], other: Sequence[Prediction]) -> float:
    """Return 0..1: of classes whether the best is the same, of boxes the share with a counterpart.

    Boxes of both sides count. The pairs of the same label that overlap most are taken first, and
    SAME of their union must be shared. Nothing on both sides is agreement, too.
    """
    sides = [[p for p in found if p.box is not None] for found in (one, other)]
    if not any(sides):
        return float(best_label(one) == best_label(other))
    pairs = sorted(
        (
            (overlap(a.box, b.box), i, j)
            for i, a in enumerate(sides[0])
            for j, b in enumerate(sides[1])
            if a.label == b.label and a.box is not None and b.box is not None
        ),
        reverse=True,
    )
    taken: tuple[set[int], set[int]] = set(), set()
    for share, i, j in pairs:
        if share >= SAME and i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
    return 2 * len(taken[0]) / (len(sides[0]) + len(sides[1]))


def best_label(found: Sequence[Prediction]) -> str:
    """Return the class that was answered; "" where there is none."""
    return found[0].label if found else ""


def overlap(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> float:
    """Return intersection over union of two boxes (x0, y0, x1, y1): 0..1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)
