"""Read camera frames and label texts from ROS 1 and ROS 2 bags. Needs rosbags, never ROS."""

import logging
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from edge_agent.frames.decode import RawLayout, decode_compressed, decode_raw, image_format
from edge_agent.frames.source import BAG_SUFFIXES
from fleet_model.errors import FrameError
from fleet_model.types import Frame

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

log = logging.getLogger(__name__)

_NS_PER_S = 1_000_000_000
_TEXT = "std_msgs/String"
_NO_FRAMES = "/compressedDepth"  # CompressedImage by type, but no camera picture


class Recorded(NamedTuple):
    """A frame with the time at which the recorder received it."""

    bag_ns: int  # label topics without a header can only be matched with this
    frame: Frame


class BagFrames:
    """The frames of one camera topic of one bag, in the order of recording.

    A bag folder whose metadata.yaml is missing or wrong, or that has a damaged file among good
    ones, is read file by file.
    """

    def __init__(self, path: Path, topic: str = "") -> None:
        """Keep what to read; `topic` "" takes the only camera topic. Nothing is opened yet."""
        self.path = path.resolve()
        self.topic = topic

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; see FrameSource for what happens to damaged ones."""
        return (recorded.frame for recorded in self.recorded())

    def recorded(self) -> Iterator[Recorded]:
        """Yield the frames with their bag times; fails as `frames` does."""
        topic = self._choose(_FRAME_READERS, self.topic, "camera topic")
        for connection, bag_ns, message in self._messages(topic, _FRAME_READERS):
            read = _FRAME_READERS[_short(connection.msgtype)]
            yield Recorded(bag_ns, _frame(read, message, self.path.name, topic, bag_ns))

    def texts(self, topic: str) -> Iterator[tuple[int, str]]:
        """Yield (bag time in ns, text) of the std_msgs/String messages of a topic.

        Raises:
            FrameError: there is no such topic; or as `frames` does.
        """
        topic = self._choose((_TEXT,), topic, "label topic (std_msgs/String)")
        for _, bag_ns, message in self._messages(topic, (_TEXT,)):
            if not isinstance(message, FrameError):
                yield bag_ns, message.data

    def _choose(self, types: Collection[str], topic: str, what: str) -> str:
        counts: dict[str, int] = {}
        for part in _parts(self.path)[0]:
            with _open(part, self.path.name) as bag:
                for connection in bag.connections(types):
                    name = connection.topic
                    counts[name] = counts.get(name, 0) + connection.msgcount
        if topic in counts:
            return topic
        listed = ", ".join(f"{name} ({count} messages)" for name, count in sorted(counts.items()))
        if topic or not counts:
            wanted = f"no {what} {topic}" if topic else f"no {what}"
            raise FrameError(f"{self.path.name}: {wanted}; it has {listed or 'none at all'}")
        candidates = [n for n, count in counts.items() if count and not n.endswith(_NO_FRAMES)]
        if len(candidates) == 1 or len(counts) == 1:
            return (candidates or list(counts))[0]
        raise FrameError(f"{self.path.name}: name one {what}: {listed}")

    def _messages(
        self, topic: str, types: Collection[str]
    ) -> Iterator[tuple["Connection", int, Any]]:
        """Yield (connection, bag time, message); a FrameError stands for a damaged message."""
        parts, failures = _parts(self.path)
        for part in parts:
            try:
                yield from _messages_of(part, self.path.name, topic, types)
            except FrameError as error:  # noqa: PERF203  (the others may be readable)
                failures.append(error)
        if failures:
            raise FrameError("; ".join(str(error) for error in failures[:3]))


def _messages_of(
    part: Path, name: str, topic: str, types: Collection[str]
) -> Iterator[tuple["Connection", int, Any]]:
    with _open(part, name) as bag:
        connections = [c for c in bag.connections(types) if c.topic == topic]
        if not connections:  # rosbags takes an empty list for "all topics"
            return
        messages = bag.reader.messages(connections=connections)
        while True:
            with _as_frame_error(part, name):
                following = next(messages, None)
            if following is None:
                return
            connection, bag_ns, content = following
            try:
                with _as_frame_error(part, name):
                    message = bag.deserialize(content, _full(connection.msgtype))
            except FrameError as error:
                message = error
            yield connection, bag_ns, message


def _parts(path: Path) -> tuple[list[Path], list[FrameError]]:
    """Return what to open one after the other, and why other files cannot be read.

    Raises:
        FrameError: nothing can be opened.
    """
    try:
        with _open(path, path.name):
            return [path], []
    except FrameError as error:
        if not path.is_dir():
            raise
        whole = error
    readable, failures = [], []
    files = [file for file in path.iterdir() if file.suffix in BAG_SUFFIXES]
    for file in sorted(files, key=_by_number):
        try:
            with _open(file, path.name):
                readable.append(file)
        except FrameError as error:  # noqa: PERF203
            failures.append(error)
    if not readable:
        raise failures[0] if failures else whole
    log.warning("%s; its files are read one by one", whole)
    return readable, failures


class _OpenBag(NamedTuple):
    """An open storage file or bag folder, and what turns its messages into objects.

    The three message types never changed, so the definitions in the bag are not needed. rosbags'
    AnyReader parses them all and refuses a bag for one strange type on a topic nobody reads.
    """

    reader: Any  # rosbags.rosbag1.Reader | rosbags.rosbag2.Reader
    deserialize: Callable[[bytes, str], Any]

    def connections(self, types: Collection[str]) -> list["Connection"]:
        """Return the connections whose type is one of `types`."""
        return [c for c in self.reader.connections if _short(c.msgtype) in types]


@contextmanager
def _open(path: Path, name: str) -> Iterator[_OpenBag]:
    from rosbags import rosbag1, rosbag2
    from rosbags.typesys import Stores, get_typestore

    reader: Any
    with _as_frame_error(path, name):
        if path.suffix == ".bag" and path.is_file():
            reader = rosbag1.Reader(path)
            deserialize = get_typestore(Stores.ROS1_NOETIC).deserialize_ros1
        else:
            reader = rosbag2.Reader(path)
            deserialize = get_typestore(Stores.ROS2_HUMBLE).deserialize_cdr
        reader.open()
    try:
        yield _OpenBag(reader, deserialize)
    finally:
        reader.close()


@contextmanager
def _as_frame_error(path: Path, name: str) -> Iterator[None]:
    """Turn whatever rosbags raises into a FrameError that names the bag but no directory.

    Damaged bytes surface as errors of rosbags, apsw, zstd, lz4, struct or as bare assertions, so
    every Exception is meant.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001
        _refuse(error, path, name)


def _refuse(error: Exception, path: Path, name: str) -> NoReturn:
    where = name if path.name == name else f"{name}/{path.name}"
    reason = str(error).replace(f"{path.parent}/", "").partition("\n")[0][:200]
    advice = "it is damaged"
    if "magic is invalid" in reason or "footer" in reason:
        advice = "the recording was cut short; `mcap recover` may save it"
    raise FrameError(f"{where}: {reason or type(error).__name__}; {advice}") from error


def _short(msgtype: str) -> str:
    """Return the type name without "/msg/"; recorded bags have both forms."""
    return msgtype.replace("/msg/", "/")


def _full(msgtype: str) -> str:
    """Return the type name as rosbags knows it."""
    return _short(msgtype).replace("/", "/msg/")


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sort rec_10.mcap after rec_9.mcap."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", path.name)]


_FrameReader = Callable[[Any, str], tuple[memoryview, str, Callable[[], Any]]]


def _read_compressed(message: Any, where: str) -> tuple[memoryview, str, Callable[[], Any]]:
    data = memoryview(message.data)
    decode = partial(decode_compressed, data, message.format, where)
    return data, image_format(data, message.format), decode


def _read_raw(message: Any, where: str) -> tuple[memoryview, str, Callable[[], Any]]:
    data = memoryview(message.data)
    layout = RawLayout(message.encoding, message.height, message.width, message.step)
    return data, message.encoding, partial(decode_raw, data, layout, where)


_FRAME_READERS: dict[str, _FrameReader] = {
    "sensor_msgs/CompressedImage": _read_compressed,
    "sensor_msgs/Image": _read_raw,
}


def _frame(read: _FrameReader, message: Any, source: str, topic: str, bag_ns: int) -> Frame:
    if isinstance(message, FrameError):
        return Frame(
            source=source,
            topic=topic,
            stamp_ns=bag_ns,
            data=b"",
            format="",
            decode=partial(_raise, message),
        )
    stamp = message.header.stamp
    stamp_ns = stamp.sec * _NS_PER_S + stamp.nanosec or bag_ns
    data, name, decode = read(message, f"{source}{topic} at {stamp_ns}")
    return Frame(
        source=source, topic=topic, stamp_ns=stamp_ns, data=data, format=name, decode=decode
    )


def _raise(error: FrameError) -> NoReturn:
    raise error
