"""Labels from a topic of the bag: texts, classifications, detections. Needs no ROS."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.cdr import parse_text
from edge_agent.data.frames.damage import WRONG_LABEL_TOPIC
from edge_agent.data.frames.source import FrameFacts
from edge_agent.data.label_formats.data_set import clean_text, largest_label
from edge_agent.data.label_formats.definition import MessageReader
from edge_agent.data.label_formats.exact_numbers import rounded
from edge_agent.data.label_formats.marks import Mark, Nearest, is_seen
from edge_agent.data.storage import Stored, Topic
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import NS_PER_S, Box

_TEXT = "std_msgs/String"


class TopicMarks:
    """The labels of one topic, matched as its type allows.

    Detections and classifications carry the stamp of their picture. A String has no header: it
    belongs to the frame that was recorded nearest to it, and frames of a camera that was recorded
    late are matched by header stamp instead.
    """

    def __init__(self, bag: BagFrames, topic: str, tolerance_s: float, damage: DamageLog) -> None:
        """Read the topic; what of it is damaged is added to `damage`.

        Raises:
            FrameError: there is no such topic, or nothing of it can be read.
        """
        declared = choose_label_topic(bag, topic)
        read = _READERS[declared.type](declared)
        by_stamp: dict[int, _Read] = {}
        by_bag: list[tuple[int, Mark]] = []
        # What is wrong with the file itself is counted when its frames are read.
        for stored in bag.stored((topic,), DamageLog()):
            found = _read(read, stored, bag.path.name, damage)
            if found is None:
                continue
            if found.stamp_ns:
                earlier = by_stamp.get(found.stamp_ns)
                by_stamp[found.stamp_ns] = found if earlier is None else _joined(earlier, found)
            else:
                by_bag.append((stored.bag_ns, found.mark))
        marks = ((stamp_ns, found.mark) for stamp_ns, found in by_stamp.items())
        self._by_stamp = Nearest(marks, tolerance_s)
        self._by_bag = Nearest(by_bag, tolerance_s)

    def find(self, bag_ns: int, frame: FrameFacts) -> Mark | None:
        """Return the mark of a frame."""
        found = self._by_stamp.at(frame.stamp_ns) or self._by_bag.at(bag_ns)
        return found or self._by_bag.at(frame.stamp_ns)


class _Read(NamedTuple):
    stamp_ns: int  # 0: the message has none
    mark: Mark
    is_part: bool = False  # one of several things in a picture, which have a message each
    bad_boxes: int = 0  # without a class, or with corners that are no numbers


_Reader = Callable[[bytes | memoryview], _Read]


def has_topic(bag: BagFrames, name: str) -> bool:
    """Return whether the bag has a topic of this name; raises FrameError as `BagFrames.topics`."""
    return any(topic.name == name for topic in bag.topics())


def label_topics(bag: BagFrames) -> list[Topic]:
    """Return the topics whose messages may be labels; raises FrameError as `BagFrames.topics`."""
    return [topic for topic in bag.topics() if topic.type in _READERS]


def choose_label_topic(bag: BagFrames, name: str) -> Topic:
    """Return the topic; raises FrameError(WRONG_LABEL_TOPIC) if the bag has no such labels."""
    topics = label_topics(bag)
    for topic in topics:
        if topic.name == name:
            return topic
    usable = [f"{topic.name} ({topic.messages} messages)" for topic in topics]
    other = next((topic.type for topic in bag.topics() if topic.name == name), "")
    what = f"{name} is a {other}, no label topic" if other else f"no label topic {name}"
    raise FrameError(
        f"{bag.path.name}: {what}; it has {', '.join(usable) or 'none'} "
        f"(of the types {', '.join(_READERS)})",
        WRONG_LABEL_TOPIC,
    )


def _read(read: _Reader, stored: Stored, name: str, damage: DamageLog) -> _Read | None:
    where = f"{name}{stored.topic.name} at {stored.bag_ns}"
    try:
        found = read(stored.load())
    except FrameError as error:
        damage.add("bad label message", f"{where}: {error}")
        return None
    if found.bad_boxes:
        damage.add("bad box", where, found.bad_boxes)
    return found


def _joined(first: _Read, second: _Read) -> _Read:
    """Return two messages of one stamp as one: boxes add up, of anything else the last counts."""
    if not second.is_part:
        return second
    boxes = (*first.mark.boxes, *second.mark.boxes)
    mark = Mark(largest_label(boxes), boxes, seen=bool(boxes))
    return _Read(first.stamp_ns, mark, is_part=True)


def _text_reader(topic: Topic) -> _Reader:
    def read(data: bytes | memoryview) -> _Read:
        return _Read(0, Mark(clean_text(parse_text(data, topic.encoding)).strip(), seen=False))

    return read


def _classification_reader(topic: Topic) -> _Reader:
    messages = MessageReader(topic.type, topic.definition, topic.encoding)

    def read(data: bytes | memoryview) -> _Read:
        message = messages.read(data)
        return _Read(_stamp_ns(message), Mark(_best_class(message.results), seen=False))

    return _declared(read)


def _detections_reader(topic: Topic) -> _Reader:
    messages = MessageReader(topic.type, topic.definition, topic.encoding)

    def read(data: bytes | memoryview) -> _Read:
        message = messages.read(data)
        boxes, bad = _boxes(message.detections)
        mark = Mark(largest_label(boxes), boxes, is_seen(message.detections, boxes, seen=True))
        return _Read(_stamp_ns(message), mark, bad_boxes=bad)

    return _declared(read)


def _detection_reader(topic: Topic) -> _Reader:
    messages = MessageReader(topic.type, topic.definition, topic.encoding)

    def read(data: bytes | memoryview) -> _Read:
        message = messages.read(data)
        boxes, bad = _boxes([message])
        mark = Mark(largest_label(boxes), boxes, seen=bool(boxes))
        return _Read(_stamp_ns(message), mark, is_part=True, bad_boxes=bad)

    return _declared(read)


def _declared(read: _Reader) -> _Reader:
    """Return a reader that knows FrameError only: a definition may lack any field."""

    def careful(data: bytes | memoryview) -> _Read:
        try:
            return read(data)
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise FrameError(f"its definition is no vision_msgs: {error}", "bad message") from None

    return careful


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def _best_class(results: Any) -> str:
    """Return the class with the best score, the first of equals; "" without results.

    Its field was called `id` before vision_msgs 3, and a number in ROS 1.
    """
    hypotheses = [getattr(result, "hypothesis", result) for result in results]
    best = max(hypotheses, key=lambda hypothesis: hypothesis.score, default=None)
    if best is None:
        return ""
    return clean_text(str(best.class_id if hasattr(best, "class_id") else best.id)).strip()


def _boxes(detections: Any) -> tuple[tuple[Box, ...], int]:
    """Return the boxes, and how many detections are none; without results one has no class."""
    found = [_box(detection) for detection in detections if len(detection.results)]
    return tuple(box for box in found if box is not None), found.count(None)


def _box(detection: Any) -> Box | None:
    label = _best_class(detection.results)
    bbox = detection.bbox
    center = getattr(bbox.center, "position", bbox.center)  # without one before vision_msgs 4
    numbers = (center.x, center.y, bbox.size_x, bbox.size_y, bbox.center.theta)
    if not label or not all(map(math.isfinite, numbers)):
        return None
    across, down = _extent(bbox.size_x, bbox.size_y, bbox.center.theta)
    x, y = Fraction(center.x), Fraction(center.y)
    return Box(
        label=label,
        x0=rounded(x - across / 2),
        y0=rounded(y - down / 2),
        x1=rounded(x + across / 2),
        y1=rounded(y + down / 2),
    )


def _extent(width: float, height: float, theta: float) -> tuple[Fraction, Fraction]:
    """Return the size of the upright box around a box that is turned by theta radians."""
    if not theta:
        return Fraction(width), Fraction(height)
    cosine, sine = abs(math.cos(theta)), abs(math.sin(theta))
    return Fraction(width * cosine + height * sine), Fraction(width * sine + height * cosine)


_READERS: dict[str, Callable[[Topic], _Reader]] = {
    _TEXT: _text_reader,
    "vision_msgs/Classification": _classification_reader,
    "vision_msgs/Classification2D": _classification_reader,
    "vision_msgs/Detection2D": _detection_reader,
    "vision_msgs/Detection2DArray": _detections_reader,
}
LABEL_TYPES = tuple(_READERS)
