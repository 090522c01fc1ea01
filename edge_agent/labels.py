"""Where a frame's label comes from: a label topic of its bag, or the name of its folder."""

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from edge_agent.frames.bag import BagFrames
from edge_agent.frames.source import open_frames, source_kind
from fleet_model.errors import FrameError
from fleet_model.types import Frame

log = logging.getLogger(__name__)

_NS_PER_S = 1_000_000_000
TOLERANCE_S = 0.1  # an annotator answers within milliseconds; three periods of a 30 Hz camera


class LabelledFrame(NamedTuple):
    """A frame with the label that was given to it on this robot."""

    frame: Frame
    label: str  # "" where there is none


class LabelSettings(NamedTuple):
    """What the operator says about topics."""

    topic: str = ""  # camera topic of a bag; "" takes the only one
    label_topic: str = ""  # std_msgs/String topic of a bag; "" leaves its frames without labels
    tolerance_s: float = TOLERANCE_S  # how far a label may lie from its frame


def labelled_frames(path: Path, settings: LabelSettings) -> Iterator[LabelledFrame]:
    """Yield every readable frame at `path` with its label.

    In a bag, a label belongs to the frame whose bag time is nearest; frames of a camera that was
    recorded late are matched by header stamp instead. In a folder, the label of circle/0001.jpg is
    "circle".

    Raises:
        FrameError: as `FrameSource.frames` does, or the bag has no such topic.
    """
    return _LABELLERS[source_kind(path)](path, settings)


class NearestLabel:
    """Labels by time."""

    def __init__(self, marks: Iterable[tuple[int, str]], tolerance_s: float) -> None:
        """Keep (time in ns, label) pairs, in any order; of one time, the last counts."""
        self._marks = sorted(dict(marks).items())
        self._times = [time_ns for time_ns, _ in self._marks]
        self._tolerance_ns = round(tolerance_s * _NS_PER_S)

    def at(self, time_ns: int) -> str:
        """Return the label nearest to a time, the earlier one of two, "" beyond the tolerance."""
        after = bisect_left(self._times, time_ns)
        near = self._marks[max(after - 1, 0) : after + 1]
        distances = [(abs(mark_ns - time_ns), label) for mark_ns, label in near]
        distance, label = min(distances, key=lambda pair: pair[0], default=(0, ""))
        return label if distance <= self._tolerance_ns else ""


def _bag_labels(path: Path, settings: LabelSettings) -> Iterator[LabelledFrame]:
    bag = BagFrames(path, settings.topic)
    marks: list[tuple[int, str]] = []
    if settings.label_topic:
        try:
            for time_ns, text in bag.texts(settings.label_topic):
                marks.append((time_ns, text.strip()))
        except FrameError as error:
            if not marks:
                raise
            log.warning("%s; labels from the readable part are used", error)
    nearest = NearestLabel(marks, settings.tolerance_s)
    for bag_ns, frame in bag.recorded():
        yield LabelledFrame(frame, nearest.at(bag_ns) or nearest.at(frame.stamp_ns))


def _folder_labels(path: Path, settings: LabelSettings) -> Iterator[LabelledFrame]:
    for frame in open_frames(path, settings.topic).frames():
        name = PurePosixPath(frame.source) / frame.topic
        yield LabelledFrame(frame, name.parent.name)


_LABELLERS: dict[str, Callable[[Path, LabelSettings], Iterator[LabelledFrame]]] = {
    "bag": _bag_labels,
    "folder": _folder_labels,
}
