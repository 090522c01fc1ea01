"""Messages as the middleware delivers them, and the bags that come of them, read by others."""

from pathlib import Path
from typing import Any

from bag_writer import BagWriter, encode
from edge_perception.recorder.bag import TopicType
from edge_perception.recorder.definitions import definition_of
from edge_perception.recorder.message import Message
from rosbags.highlevel import AnyReader

from edge_agent.data.frames.bag import BagFrames
from fleet_model.files.damage import DamageLog

T0 = BagWriter.START_NS
MS = 1_000_000
CAMERA, LABELS = BagWriter.CAMERA, BagWriter.LABELS
TYPES = {CAMERA: "sensor_msgs/msg/CompressedImage", LABELS: "std_msgs/msg/String"}
TOPICS = {topic: TopicType(name, definition_of(name)) for topic, name in TYPES.items()}
BAGS = BagWriter()


def frame(ms: int, content: bytes = b"", *, late_ms: int = 1) -> Message:
    """Return a frame stamped `ms` after T0 that arrives `late_ms` later."""
    stamp_ns = T0 + ms * MS
    cdr = _serialized(CAMERA, BAGS.jpeg(stamp_ns, content or encode(100)))
    return Message(CAMERA, cdr, stamp_ns + late_ms * MS, stamp_ns, is_frame=True)


def label(ms: int, text: str = "clear") -> Message:
    """Return a label that arrives `ms` after T0."""
    cdr = _serialized(LABELS, BAGS.text(text))
    return Message(LABELS, cdr, T0 + ms * MS, T0 + ms * MS, is_frame=False)


def _serialized(topic: str, message: Any) -> bytes:
    return bytes(BAGS.store.serialize_cdr(message, TYPES[topic]))


def bags_in(spool: Path) -> list[Path]:
    return sorted(path for path in spool.iterdir() if not path.name.startswith("."))


def by_rosbags(bag: Path) -> list[tuple[str, int]]:
    """Return (topic, ms of the header or of the arrival) of each message."""
    found = []
    with AnyReader([bag]) as reader:
        for connection, log_ns, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            stamp = message.header.stamp if connection.topic == CAMERA else None
            ns = stamp.sec * 10**9 + stamp.nanosec if stamp else log_ns
            found.append((connection.topic, (ns - T0) // MS))
    return found


def by_agent(bag: Path) -> list[int]:
    """Return the ms of each frame; nothing of the bag may be damaged."""
    damage = DamageLog()
    entries = list(BagFrames(bag).entries(damage))
    stamps = [(entry.load().stamp_ns - T0) // MS for entry in entries]
    assert not damage, damage.all()
    return stamps


def frames_in(spool: Path) -> list[int]:
    """Return the ms of all frames of all bags; both readers agree on each."""
    stamps: list[int] = []
    for bag in bags_in(spool):
        ours = by_agent(bag)
        assert ours == [ms for topic, ms in by_rosbags(bag) if topic == CAMERA]
        stamps += ours
    return stamps


def labels_in(spool: Path) -> list[int]:
    return [ms for bag in bags_in(spool) for topic, ms in by_rosbags(bag) if topic == LABELS]
