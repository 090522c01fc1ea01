"""The sums of all robots, and those of all but a few, however many robots there are.

Robots are in at most MAX_FOLDS groups, in a small fleet each by itself. Only the groups' sums are
held in memory: of a robot with 1,280 features they have 13 MB.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cloud_server.closed_form.moments import Basis, Moments, basis_of
from fleet_model.sums.class_sums import ClassSums
from fleet_model.types import Tensor

MAX_FOLDS = 20


@dataclass(frozen=True, eq=False, slots=True)
class FleetSums:
    """Made by `fleet_sums`; nothing in here is ever changed."""

    robots: Mapping[str, ClassSums]
    factors: Mapping[str, float]  # robot -> what each of its frames counts
    basis: Basis
    groups: Mapping[int, tuple[tuple[str, ...], Moments]]  # who is in it, and their sums

    @property
    def width(self) -> int:
        """Return the length of a feature vector."""
        return self.basis.width

    @property
    def names(self) -> Sequence[str]:
        """Return the robots, sorted."""
        return sorted(name for members, _ in self.groups.values() for name in members)

    @property
    def total(self) -> Moments:
        """Return what all say together."""
        return _added([moments for _, moments in self.groups.values()])

    def own(self, name: str) -> Moments:
        """Return what one robot says."""
        return self.basis.moments(self.robots[name]).scaled(self.factors.get(name, 1.0))

    def means(self, name: str) -> tuple[Tensor, Tensor]:
        """Return (counts that count, class means in the axes) of one robot: cheaper than `own`."""
        one = self.robots[name]
        return one.counts * self.factors.get(name, 1.0), self.basis.along(one.means)

    def without(self, name: str) -> "FleetSums | None":
        """Return the sums of the others; None if there are none."""
        groups = {}
        for key, (members, moments) in self.groups.items():
            left = tuple(one for one in members if one != name)
            if len(left) == len(members):
                groups[key] = (members, moments)
            elif left:  # added again, not subtracted: as if it had never been there
                groups[key] = (left, _added([self.own(one) for one in left]))
        if not groups:
            return None
        return FleetSums(self.robots, self.factors, self.basis, groups)


def fleet_sums(
    robots: Mapping[str, ClassSums], factors: Mapping[str, float] | None = None
) -> FleetSums:
    """Add up the sums of at least one robot.

    Args:
        robots: by name. What is read from a disk may be read at every access.
        factors: robot -> what each of its frames counts; 1 where it is not named.
    """
    basis, names = basis_of(robots), sorted(robots)
    sums = FleetSums(robots, factors or {}, basis, {})
    members: dict[int, list[str]] = {}
    for number, name in enumerate(names):
        few = len(names) <= MAX_FOLDS
        members.setdefault(number if few else zlib.crc32(name.encode()) % MAX_FOLDS, []).append(
            name
        )
    groups = {
        key: (tuple(members[key]), _added([sums.own(name) for name in members[key]]))
        for key in sorted(members)
    }
    return FleetSums(robots, factors or {}, basis, groups)


def labels_of_several(sums: FleetSums) -> Tensor:
    """Return which labels at least two robots have, (classes,) bool."""
    having: Tensor = np.sum([sums.robots[name].counts > 0 for name in sums.names], axis=0)
    return having >= 2


def _added(moments: Sequence[Moments]) -> Moments:
    added = moments[0]
    for one in moments[1:]:
        added = added + one
    return added
