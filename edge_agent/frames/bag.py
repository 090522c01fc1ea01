"""Read camera frames and label texts from ROS 1 and ROS 2 bags. Needs rosbags, never ROS."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
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
_NO_PICTURES = "/compressedDepth"  # CompressedImage by type, but no camera picture


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
        wanted = _Wanted(self.topic, _FRAME_READERS, "camera topic")
        for connection, bag_ns, message in _messages(self.path, wanted):
            read = _FRAME_READERS[_short(connection.msgtype)]
            yield Recorded(bag_ns, _frame(read, message, self.path.name, connection.topic, bag_ns))

    def texts(self, topic: str) -> Iterator[tuple[int, str]]:
        """Yield (bag time in ns, text) of the std_msgs/String messages of a topic.

        Raises:
            FrameError: there is no such topic; or as `frames` does.
        """
        wanted = _Wanted(topic, (_TEXT,), "label topic (std_msgs/String)")
        for _, bag_ns, message in _messages(self.path, wanted):
            if not isinstance(message, FrameError):
                yield bag_ns, message.data


class _Wanted(NamedTuple):
    topic: str  # "" for the only one
    types: Collection[str]
    what: str  # for errors


class _OpenBag(NamedTuple):
    """An open storage file or bag folder, and what turns its messages into objects.

    The three message types never changed, so the definitions in the bag are not needed. rosbags'
    AnyReader parses them all and refuses a bag for one strange type on a topic nobody reads.
    """

    path: Path
    reader: Any  # rosbags.rosbag1.Reader | rosbags.rosbag2.Reader
    deserialize: Callable[[bytes, str], Any]

    def connections(self, types: Collection[str]) -> list["Connection"]:
        """Return the connections whose type is one of `types`."""
        return [c for c in self.reader.connections if _short(c.msgtype) in types]


def _messages(path: Path, wanted: _Wanted) -> Iterator[tuple["Connection", int, Any]]:
    """Yield (connection, bag time, message); a FrameError stands for a damaged message.

    Raises:
        FrameError: the wanted topic is not there; or, at the end, a part is damaged.
    """
    with ExitStack() as stack:
        bags, failures = _open_parts(path, stack)
        topic = _choose(bags, wanted, path.name)
        for bag in bags:
            try:
                yield from _messages_of(bag, path.name, topic, wanted.types)
            except FrameError as error:
                failures.append(error)
    if failures:
        raise FrameError("; ".join(str(error) for error in failures[:3]))


def _messages_of(
    bag: _OpenBag, name: str, topic: str, types: Collection[str]
) -> Iterator[tuple["Connection", int, Any]]:
    connections = [c for c in bag.connections(types) if c.topic == topic]
    if not connections:  # rosbags takes an empty list for "all topics"
        return
    messages = bag.reader.messages(connections=connections)
    while True:
        with _as_frame_error(bag.path, name):
            following = next(messages, None)
        if following is None:
            return
        connection, bag_ns, content = following
        try:
            with _as_frame_error(bag.path, name):
                message = bag.deserialize(content, _full(connection.msgtype))
        except FrameError as error:
            message = error
        yield connection, bag_ns, message


def _choose(bags: Collection[_OpenBag], wanted: _Wanted, name: str) -> str:
    """Return the wanted topic, or the only one that has messages."""
    counts = Counter[str]()
    for bag in bags:
        for connection in bag.connections(wanted.types):
            counts[connection.topic] += connection.msgcount
    if wanted.topic in counts:
        return wanted.topic
    listed = ", ".join(f"{topic} ({count} messages)" for topic, count in sorted(counts.items()))
    if wanted.topic or not counts:
        missing = f"{wanted.what} {wanted.topic}".strip()
        raise FrameError(f"{name}: no {missing}; it has {listed or 'none at all'}")
    candidates = [t for t, count in counts.items() if count and not t.endswith(_NO_PICTURES)]
    if len(candidates) == 1 or len(counts) == 1:
        return (candidates or list(counts))[0]
    raise FrameError(f"{name}: name one {wanted.what}: {listed}")


def _open_parts(path: Path, stack: ExitStack) -> tuple[list[_OpenBag], list[FrameError]]:
    """Open a bag, or the files of one that cannot be opened as a whole, until `stack` ends.

    Returns:
        What to read one after the other, and why the other files cannot be read.

    Raises:
        FrameError: nothing can be opened.
    """
    try:
        return [stack.enter_context(_open(path, path.name))], []
    except FrameError as error:
        if not path.is_dir():
            raise
        whole = error
    bags, failures = [], []
    files = [file for file in path.iterdir() if file.suffix in BAG_SUFFIXES]
    for file in sorted(files, key=_by_number):
        try:
            bags.append(stack.enter_context(_open(file, path.name)))
        except FrameError as error:
            failures.append(error)
    if not bags:
        raise failures[0] if failures else whole
    log.warning("%s; its files are read one by one", whole)
    return bags, failures


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
        yield _OpenBag(path, reader, deserialize)
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
