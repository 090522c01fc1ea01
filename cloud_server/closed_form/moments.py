"""The sums of a fleet in the few axes that they span, and what they add up to.

Robots are gone over in the order of their names, so that neither the order in which sums came nor
how late they were can change a bit of what is computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fleet_model.sums.class_sums import ClassSums
from fleet_model.types import Tensor

_TINY = 1e-10  # of the longest axis: a shorter one is rounding


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Moments:
    """Raw sums; they add up. All float64, axes are those of a `Basis`."""

    counts: Tensor  # (classes,) frames
    sums: Tensor  # (classes, axes): of the features of each class
    second: Tensor  # (axes, axes): of feature feature'

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            counts=self.counts + other.counts,
            sums=self.sums + other.sums,
            second=self.second + other.second,
        )

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(
            counts=self.counts - other.counts,
            sums=self.sums - other.sums,
            second=self.second - other.second,
        )

    def scaled(self, factor: float) -> "Moments":
        """Return what the same robot would say with `factor` times the frames."""
        if factor == 1:
            return self
        return Moments(
            counts=self.counts * factor, sums=self.sums * factor, second=self.second * factor
        )

    @property
    def means(self) -> Tensor:
        """Return the mean of each class, (classes, axes); zeros for one without frames."""
        means: Tensor = self.sums / np.maximum(self.counts, 1e-300)[:, None]
        return means

    @property
    def within(self) -> Tensor:
        """Return the scatter around each class's mean, (axes, axes)."""
        means = self.means
        scatter: Tensor = self.second - (means * self.counts[:, None]).T @ means
        return scatter


@dataclass(frozen=True, eq=False, slots=True)
class Basis:
    """Orthonormal axes, (axes, width), that hold all sums of a fleet; None: the features' own."""

    axes: Tensor | None
    width: int

    def moments(self, sums: ClassSums) -> Moments:
        """Return one robot's sums in these axes."""
        means, directions = self.along(sums.means), self.along(sums.directions)
        weighted = means * sums.counts[:, None]
        scatter = directions.T @ directions if sums.within is None else sums.within
        return Moments(counts=sums.counts, sums=weighted, second=scatter + weighted.T @ means)

    def along(self, rows: Tensor) -> Tensor:
        """Return rows of features, (rows, width), in these axes: (rows, axes)."""
        turned: Tensor = rows if self.axes is None else rows @ self.axes.T
        return turned

    def whole(self, kernel: Tensor) -> Tensor:
        """Return a kernel, (axes, classes), for features: (width, classes)."""
        return kernel if self.axes is None else self.axes.T @ kernel


def basis_of(robots: Mapping[str, ClassSums]) -> Basis:
    """Return axes for the sums of a fleet: few where robots send few directions.

    What a head in closed form is made of lies in the span of means and directions, so to compute in
    that span is exact, and with 16 directions a robot much cheaper.
    """
    stacked: list[Tensor] = []
    width = 0
    for name in sorted(robots):
        one = robots[name]
        width = one.width
        if one.within is not None:
            return Basis(None, width)
        stacked += [one.directions, one.means[one.counts > 0]]
        if sum(map(len, stacked)) >= width:
            return Basis(None, width)
    rows = np.concatenate(stacked)
    _, lengths, axes = np.linalg.svd(rows, full_matrices=False)
    return Basis(axes[lengths > lengths.max(initial=0.0) * _TINY], width)
