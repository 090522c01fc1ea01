"""Labels by time: which one belongs to a frame."""

from bisect import bisect_left
from collections.abc import Iterable, Sized
from typing import Generic, NamedTuple, Protocol, TypeVar

from edge_agent.data.frames.source import FrameFacts
from fleet_model.types import NS_PER_S, Box

T = TypeVar("T")


class Mark(NamedTuple):
    """What somebody says about one moment."""

    label: str
    boxes: tuple[Box, ...] = ()
    # Whether anybody has said which things are to be seen: then no boxes means that nothing is. A
    # label of the whole picture alone does not say so.
    seen: bool = True


UNSEEN = Mark("", seen=False)  # nobody has said anything


def is_seen(told: Sized, sound: Sized, seen: bool) -> bool:
    """Return whether a frame's boxes say what is there.

    Damage never makes a frame one in which nothing is: where somebody drew boxes and none of them
    can be used, nobody knows.

    Args:
        told: the boxes that somebody drew.
        sound: those of them that can be used.
        seen: whether none of them would say that nothing is there.
    """
    return bool(sound) or (seen and not told)


class Marks(Protocol):
    """Where a frame's label is looked up."""

    def find(self, bag_ns: int, frame: FrameFacts) -> Mark | None:
        """Return the mark of a frame that the recorder received at `bag_ns`; None without one."""
        ...


class Nearest(Generic[T]):
    """Things by time."""

    def __init__(self, marks: Iterable[tuple[int, T]], tolerance_s: float) -> None:
        """Keep (time in ns, thing) pairs, in any order; of one time, the last counts."""
        by_time = dict(marks)
        self._times = sorted(by_time)
        self._things = [by_time[time_ns] for time_ns in self._times]
        self._tolerance_ns = round(tolerance_s * NS_PER_S)

    def at(self, time_ns: int) -> T | None:
        """Return the thing nearest to a time, the earlier one of two; None beyond the tolerance."""
        after = bisect_left(self._times, time_ns)
        near = range(max(after - 1, 0), min(after + 1, len(self._times)))
        best = min(near, key=lambda position: abs(self._times[position] - time_ns), default=None)
        if best is None or abs(self._times[best] - time_ns) > self._tolerance_ns:
            return None
        return self._things[best]


class StampMarks:
    """Marks by the stamp of their frames; of several cameras each finds its own, if there are."""

    def __init__(self, marks: Iterable[tuple[int, str, Mark]], tolerance_s: float) -> None:
        """Keep (stamp in ns, topic or "", mark), in any order."""
        by_topic: dict[str, list[tuple[int, Mark]]] = {}
        everything: list[tuple[int, Mark]] = []
        for stamp_ns, topic, mark in marks:
            by_topic.setdefault(topic, []).append((stamp_ns, mark))
            everything.append((stamp_ns, mark))
        self._all = Nearest(everything, tolerance_s)
        self._by_topic = {topic: Nearest(listed, tolerance_s) for topic, listed in by_topic.items()}

    def find(self, bag_ns: int, frame: FrameFacts) -> Mark | None:
        """Return the mark nearest to the frame's stamp."""
        return self._by_topic.get(frame.topic, self._all).at(frame.stamp_ns)
