"""Decide which examples a robot measures with and never trains on."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from fleet_model.errors import SettingsError
from fleet_model.types import NS_PER_S

_LARGEST_BLOCK = 20  # segments; 0.15 is 3 of 20
# Of a segment: frames nearer to each other than this are neighbors. A robot that drives at half a
# meter a second sees nearly the same for a second, a tenth of the ten seconds of a segment.
_NEIGHBOURS = 10


class Moment(NamedTuple):
    """What the split looks at; moments are ordered by time."""

    stamp_ns: int
    name: str  # distinguishes moments of one stamp
    label: str
    camera: str = ""  # frames of one camera that follow each other are neighbors; "" has none


class HeldOutSplit:
    """A share of every label by time segment, since neighboring frames are nearly the same.

    Time since 1970 is cut into segments, and of every block of segments (five for a share of 0.2) a
    hash picks those that are held out. So one segment's frames of one label stay together, two
    cameras of one time too, and nothing but the clock decides.

    Two rules guard small recordings, for each label by itself:
      1. A picked segment counts only if it has no more frames than lie before it, so that what is
         measured is never most of what there is.
      2. A label that gets no segment in this way holds out the newest share of its frames. If that
         is less than half a frame for every label, the newest frame of all is held out.
    So two or more moments always come out on both sides.

    Where a held-out segment begins or ends, frames of both sides are neighbors all the same: a
    held-out frame less than a tenth of a segment from a training frame of its camera is on neither
    side (`between`), unless a label would have no other to be measured with (`near`).

    Newer data never moves a frame from training to held out, so a robot is not measured with what
    it was trained on; older data that comes or goes does not either, given what was `trained`. The
    other way round happens: rule 2 ends when a segment is picked.
    """

    def __init__(
        self,
        moments: Iterable[Moment],
        held_out: float,
        segment_s: float,
        trained: Container[Moment] = (),
        taught: Container[Moment] = (),
    ) -> None:
        """Look at all moments once.

        Args:
            moments: of every example, in any order.
            held_out: share, 0 to 0.5; 0 holds out nothing.
            segment_s: longer than things stay in view.
            trained: moments that a robot was trained on: they are never held out.
            taught: moments that a teacher has labelled: nor are they.

        Raises:
            SettingsError: a number is out of its range.
        """
        if not 0 <= held_out <= 0.5:
            raise SettingsError(f"held_out is {held_out}, expected 0 to 0.5")
        if not segment_s >= 1e-3:
            raise SettingsError(f"segment_s is {segment_s}, expected at least 0.001 seconds")
        self._segment_ns = round(segment_s * NS_PER_S)
        self._trained, self._taught = trained, taught
        share = Fraction(held_out).limit_denominator(_LARGEST_BLOCK)
        self._picks, self._block = share.numerator, share.denominator
        self._segments: dict[str, set[int]] = {}
        self._newer_than: dict[str, Moment] = {}
        ordered = sorted(moments)
        for label in {moment.label for moment in ordered} if held_out else ():
            self._divide([m for m in ordered if m.label == label], held_out)
        if held_out and len(ordered) > 1 and not any(map(self.holds_out, ordered)):
            self._newer_than.setdefault(ordered[-1].label, ordered[-2])
        self._held: dict[str, list[int]] = {}  # camera -> stamps that are held out
        for moment in filter(self.holds_out, ordered):
            self._held.setdefault(moment.camera, []).append(moment.stamp_ns)
        near = self._neighbors(ordered)
        far = {m.label for m in ordered if self.holds_out(m) and m not in near}
        self._between = {moment for moment in near if moment.label in far}
        self.near = frozenset(moment.label for moment in near) - far
        """The labels that are measured with neighbors of training examples, for want of others."""

    def holds_out(self, moment: Moment) -> bool:
        """Return whether the example of this moment is not trained on."""
        return moment not in self._trained and moment not in self._taught and self.picks(moment)

    def picks(self, moment: Moment) -> bool:
        """Return whether a moment is held out unless it was trained on or taught."""
        if moment.stamp_ns // self._segment_ns in self._segments.get(moment.label, ()):
            return True
        newer_than = self._newer_than.get(moment.label)
        return newer_than is not None and moment > newer_than

    def between(self, moment: Moment) -> bool:
        """Return whether a held-out example is too near to a training example to measure with."""
        return moment in self._between

    def may_hold_out(self, moment: Moment) -> bool:
        """Return whether an example that has no label yet must not be trained on for that reason.

        With a label it may be held out, since its segment is picked; or it is too near to one of
        its camera that is.
        """
        block, position = divmod(moment.stamp_ns // self._segment_ns, self._block)
        if position in _picked(block, self._block, self._picks):
            return True
        guard_ns = self._segment_ns // _NEIGHBOURS
        return bool(moment.camera) and _is_near(
            moment.stamp_ns, self._held.get(moment.camera, ()), guard_ns
        )

    def _neighbors(self, ordered: list[Moment]) -> set[Moment]:
        """Return the held-out moments that are near a training moment of their camera."""
        training: dict[str, list[int]] = {}
        held: list[Moment] = []
        for moment in ordered:
            if self.holds_out(moment):
                held.append(moment)
            elif moment.camera:
                training.setdefault(moment.camera, []).append(moment.stamp_ns)
        guard_ns = self._segment_ns // _NEIGHBOURS
        return {m for m in held if _is_near(m.stamp_ns, training.get(m.camera, ()), guard_ns)}

    def _divide(self, ordered: list[Moment], held_out: float) -> None:
        before, label = 0, ordered[0].label
        segments: set[int] = set()
        counts = Counter(moment.stamp_ns // self._segment_ns for moment in ordered)
        for segment, count in sorted(counts.items()):
            block, position = divmod(segment, self._block)
            if before >= count and position in _picked(block, self._block, self._picks):
                segments.add(segment)
            before += count
        if segments:
            self._segments[label] = segments
        elif newest := round(held_out * before):
            self._newer_than[label] = ordered[before - newest - 1]


def _is_near(stamp_ns: int, others: Sequence[int], guard_ns: int) -> bool:
    """Return whether one of `others`, which are sorted, is less than `guard_ns` away."""
    after = bisect_left(others, stamp_ns)
    return any(abs(other - stamp_ns) < guard_ns for other in others[max(after - 1, 0) : after + 1])


@lru_cache(maxsize=1024)
def _picked(block: int, size: int, picks: int) -> frozenset[int]:
    """Return `picks` of `size` places, by a hash that differs from block to block."""
    positions = sorted(
        range(size), key=lambda position: blake2b(f"{block}/{position}".encode()).digest()
    )
    return frozenset(positions[:picks])
