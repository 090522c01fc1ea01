"""From the sums of robots to the weights of a head, by name of the method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cloud_server.closed_form.doubts import Doubt, find_doubtful
from cloud_server.closed_form.fleet_sums import FleetSums, fleet_sums
from cloud_server.closed_form.heads import HEADS, Head, with_unseen
from cloud_server.closed_form.leave_one_out import choose_sharpness, choose_strength
from fleet_model.sums.class_sums import ClassSums
from fleet_model.types import Tensor

LDA_STRENGTH = 1.0  # .889 to .894 on the demo's task from .3 to 3: it hardly matters


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Solved:
    """A head, and how it came to be."""

    kernel: Tensor  # (width, classes) float32
    bias: Tensor  # (classes,) float32
    strength: float
    doubts: Sequence[Doubt]  # robots whose sums are not in it
    robots: Sequence[str]  # whose sums are
    frames: Tensor  # (classes,) that count
    # Of those whose sums are of several robots, name -> how many: of site relays.
    behind: Mapping[str, int] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Return of how many robots the head is made."""
        return sum(self.behind.get(name, 1) for name in self.robots)


def solve(
    robots: Mapping[str, ClassSums],
    method: str,
    factors: Mapping[str, float] | None = None,
    *,
    strength: float | None = None,
    doubting: bool = True,
) -> Solved:
    """Return the head of a fleet; the same robots give the same bits in any order.

    Args:
        robots: at least one with frames.
        method: a key of HEADS.
        factors: robot -> what each of its frames counts; 1 where it is not named.
        strength: of the ridge, and what is added to LDA's scatter; None: chosen from the sums.
        doubting: whether robots whose labels contradict the others' are left out.
    """
    sums = fleet_sums(robots, factors)
    fitting = choose_strength(sums) if strength is None else strength
    doubts = find_doubtful(sums, fitting) if doubting else []
    for doubt in doubts:
        sums = sums.without(doubt.robot) or sums
    if doubts and strength is None:
        fitting = choose_strength(sums)
    if method == "lda" and strength is None:
        fitting = LDA_STRENGTH
    total = sums.total
    head = _sharpened(HEADS[method](total, fitting, sums.width), sums, method, fitting)
    whole = with_unseen(head, total.counts > 0)
    return Solved(
        kernel=sums.basis.whole(whole.kernel).astype(np.float32),
        bias=whole.bias.astype(np.float32),
        strength=fitting,
        doubts=doubts,
        robots=sums.names,
        frames=total.counts,
    )


def _sharpened(head: Head, sums: FleetSums, method: str, strength: float) -> Head:
    """Return a ridge whose answers are logits; those of the other methods are."""
    if method != "ridge":
        return head
    factor = choose_sharpness(sums, strength)
    return Head(factor * head.kernel, factor * head.bias)
