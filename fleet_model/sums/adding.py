"""Exact sums of several robots as those of one that has all their frames."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from fleet_model.sums.class_sums import ClassSums


def added(parts: Iterable[tuple[ClassSums, float]]) -> ClassSums:
    """Return what one robot with all the frames would say, in one pass over the parts.

    Counts add up. Means do by their frames, and scatters within classes add up beside what lies
    between the parts' means (Chan, Golub and LeVeque 1979): for each class

        n = a + b,  d = m_b - m_a,  m = m_a + d b / n,  S = S_a + S_b + d d' a b / n

    No large numbers are subtracted, so the scatter stays positive semidefinite.

    Args:
        parts: (sums, what each of its frames counts, over 0), at least one. All are of the same
            classes and width.

    Raises:
        ValueError: there are no parts.
    """
    total: ClassSums | None = None
    for sums, factor in parts:
        one = replace(
            sums,
            counts=sums.counts * factor,
            directions=np.zeros((0, sums.width)),
            within=sums.scatter() * factor,
        )
        total = one if total is None else _together(total, one)
    if total is None:
        raise ValueError("there are no sums to add up")
    return total


def _together(one: ClassSums, other: ClassSums) -> ClassSums:
    counts = one.counts + other.counts
    share = other.counts / np.where(counts > 0, counts, 1.0)  # (classes,)
    apart = other.means - one.means  # (classes, width); of a class that one lacks it weighs nothing
    between = apart * (one.counts * share)[:, None]
    return replace(
        one,
        counts=counts,
        means=one.means + apart * share[:, None],
        within=one.scatter() + other.scatter() + between.T @ apart,
        robots=one.robots + other.robots,
    )
