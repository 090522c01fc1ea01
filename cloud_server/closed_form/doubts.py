"""Find a robot whose labels are wrong by its sums: rank, take one of the worst out, look again.

A robot that calls squares circles contradicts what all others say. It is taken out if all of this
holds, and then the rest is looked at again:

1. A head of the others errs on the means of its classes more than on nearly all robots'.
2. It errs about as much there as a head that answers zeros. Honest robots in other light do so,
   too: no bound tells them apart alone.
3. Without the robot the others explain each other better; of several such robots it is the one
   without which they do so best.

A label that nobody else has cannot be contradicted. It is left out of the comparison, so a robot
that brings a new label is no suspect for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cloud_server.closed_form.fleet_sums import FleetSums, fleet_sums, labels_of_several
from cloud_server.closed_form.heads import ridge
from cloud_server.closed_form.leave_one_out import choose_strength, class_errors
from fleet_model.sums.class_sums import ClassSums
from fleet_model.types import Tensor

# Squared error; that of a head that answers zeros is 1. Reversed labels: 1.2 to 1.7 (four robots,
# ten seeds of the camera). Honest robots without which the others agree better: .74 at most.
CONTRADICTS = 0.85
# The error of the others must fall by this part; by less where a robot has fewer of the frames.
# Labels reversed by one robot of four, ten seeds of the camera: by .13 to .88; by one of twenty,
# digits: .11 to .51. Honest robots: by .07 at most.
FALL = 0.1
SUSPECTS = 3  # robots that are looked at; taken out is the one that the others are better without
LEAST_ROBOTS = 3  # of two nobody knows who is wrong


@dataclass(frozen=True, slots=True)
class Doubt:
    """A robot whose sums are left out."""

    robot: str
    error: float  # squared, of the others' head on the means of its classes
    before: float  # mean of the others' errors, with the robot
    after: float  # and without it

    @property
    def words(self) -> str:
        """Return why."""
        return (
            f"its labels contradict those of the other robots: error {self.error:.2f}, above "
            f"{CONTRADICTS:g}; without it that of the others falls from {self.before:.2f} to "
            f"{self.after:.2f}"
        )


def doubts_of(robots: Mapping[str, ClassSums], factors: Mapping[str, float]) -> list[Doubt]:
    """Return the same of sums of which no head is made here: of robots behind a site relay."""
    if len(robots) < LEAST_ROBOTS:
        return []
    sums = fleet_sums(robots, factors)
    return find_doubtful(sums, choose_strength(sums))


def find_doubtful(sums: FleetSums, strength: float) -> list[Doubt]:
    """Return the robots whose sums contradict the others', worst first; fewer than half of all."""
    found: list[Doubt] = []
    most = (len(sums.names) - 1) // 2
    while len(sums.names) >= LEAST_ROBOTS and len(found) < most:
        errors = _errors(sums, strength)
        worst = sorted(errors, key=lambda name: (-errors[name], name))[:SUSPECTS]
        suspects = [name for name in worst if errors[name] > CONTRADICTS]
        without = [one for name in suspects if (one := _without(sums, name, errors, strength))]
        if not without:
            break
        doubt = min(without, key=lambda one: one.after / one.before)
        found.append(doubt)
        sums = sums.without(doubt.robot) or sums
    return found


def _without(
    sums: FleetSums, name: str, errors: Mapping[str, float], strength: float
) -> Doubt | None:
    """Return the doubt in a robot if the others explain each other better without it."""
    rest = sums.without(name)
    if rest is None:
        return None
    several = labels_of_several(rest)
    before = _mean(rest, _errors(sums, strength, several))
    after = _mean(rest, _errors(rest, strength, several))
    share = float(sums.means(name)[0].sum() / sums.total.counts.sum())
    better = after < (1 - min(FALL, share)) * before
    return Doubt(name, errors[name], before, after) if better else None


def _errors(sums: FleetSums, strength: float, labels: Tensor | None = None) -> dict[str, float]:
    """Return robot -> mean squared error of a head of the other groups on its classes' means."""
    everything, errors = sums.total, {}
    for members, own in sums.groups.values():
        others = everything - own
        if others.counts.sum() < 0.5:
            continue  # all robots in one group: there is nobody to compare with
        head = ridge(others, strength, sums.width)
        known = others.counts > 0.5 if labels is None else labels & (others.counts > 0.5)
        for name in members:
            counts, means = sums.means(name)
            counts = np.where(known, counts, 0.0)
            wrong = class_errors(head, means) @ counts
            errors[name] = float(wrong / counts.sum()) if counts.sum() else 0.0
    return errors


def _mean(sums: FleetSums, errors: dict[str, float]) -> float:
    """Return the mean over the robots of `sums`, each by its frames."""
    frames = np.array([sums.means(name)[0].sum() for name in sums.names])
    return float(np.array([errors.get(name, 0.0) for name in sums.names]) @ frames / frames.sum())
