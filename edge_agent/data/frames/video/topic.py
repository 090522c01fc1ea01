"""Frames of a video topic in a bag: one message holds one packet."""

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.data.frames.cdr import parse_compressed, parse_ffmpeg, parse_video
from edge_agent.data.frames.source import FrameEntry, Place
from edge_agent.data.frames.video.decoder import (
    AFTER_LOST,
    NAMES,
    Group,
    Pictures,
    load_av,
    packet_frame,
    packet_of,
    refuse,
)
from edge_agent.data.frames.video.nal import Headers
from edge_agent.data.frames.video.protobuf import parse_protobuf_video
from edge_agent.data.storage import Stored, Topic
from fleet_model.errors import FrameError
from fleet_model.types import Frame

# (type, encoding) -> how a message is parsed; "cdr" and "ros1" are tried as "ros"
_PARSERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("foxglove_msgs/CompressedVideo", "ros"): parse_video,
    ("foxglove.CompressedVideo", "ros"): parse_video,
    ("foxglove.CompressedVideo", "protobuf"): parse_protobuf_video,
    ("ffmpeg_image_transport_msgs/FFMPEGPacket", "ros"): parse_ffmpeg,
    ("sensor_msgs/CompressedImage", "ros"): parse_compressed,
}
_COMPRESSED = "sensor_msgs/CompressedImage"  # holds video only if its format says so
_CODECS = {"264": "h264", "avc": "h264", "265": "hevc", "hevc": "hevc"}
_DEPTH = {"16UC1", "mono16", "32FC1"}  # encodings that a color picture cannot hold
# Packets that are listed before a picture is handed out: a decoder shows it at most 16 later.
_AHEAD = 20

Numbered = tuple[Path, int, Stored]


def is_video_type(topic: Topic) -> bool:
    """Return whether every message of a topic holds video that can be parsed."""
    return topic.type != _COMPRESSED and _parser_key(topic) in _PARSERS


def split_video(numbered: Iterator[Numbered]) -> tuple[bool, Iterator[Numbered]]:
    """Return whether the messages of a topic hold video, and all of them.

    Of a CompressedImage the first message that can be read says it.
    """
    seen: list[Numbered] = []
    for item in numbered:
        seen.append(item)
        topic = item[2].topic
        if topic.type != _COMPRESSED:
            return is_video_type(topic), chain(seen, numbered)
        try:
            declared = parse_compressed(item[2].load(), topic.encoding).format
        except FrameError:
            continue
        return bool(codec_of(declared)), chain(seen, numbered)
    return False, iter(seen)


def video_entries(numbered: Iterable[Numbered], source: str) -> Iterator[FrameEntry]:
    """Yield the frames of one topic in the order of recording.

    Every message is read, since the packets decide what the next ones can be decoded from; a
    picture is decoded when it is asked for.

    Args:
        numbered: the messages of one topic: file, number in it, message.
        source: `Frame.source`.

    Raises:
        FrameError: PyAV is not installed.
    """
    stream: _Stream | None = None
    waiting: deque[FrameEntry] = deque()
    for number, (file, at, stored) in enumerate(numbered):
        stream = stream or _Stream(source, stored.topic.name)
        load = stream.add(number, stored)
        if load is None:
            continue
        waiting.append(FrameEntry(stored.bag_ns, load, stored.topic.name, Place(file, at)))
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    if stream:
        stream.end()
    yield from waiting


class _Stream:
    """Lists the packets of a topic one after the other."""

    def __init__(self, source: str, topic: str) -> None:
        self._names = source, topic
        self._where = f"{source}{topic}"
        load_av(self._where)
        self._pictures = Pictures(_open_decoder, _feed, self._where)
        self._before: Group | None = None
        self._group: Group | None = None
        self._headers: Headers | None = None
        self._codec = ""
        self._parameters: list[Stored] = []  # messages with nothing else, for the next picture
        self._chain = 0  # crc32 of the packets since the key frame

    def add(self, number: int, stored: Stored) -> Callable[[], Frame] | None:
        """Read a message; return what gives its frame, or raises what is wrong with it.

        None: it holds no picture, only parameters for those that follow.
        """
        try:
            return self._read(number, stored)
        except FrameError as error:
            if self._group and self._group.spoilt is None:
                self._group.spoilt = number
            return partial(refuse, error)

    def end(self) -> None:
        """Say that the last group has no more packets."""
        if self._group:
            self._group.closed = True

    def _read(self, number: int, stored: Stored) -> Callable[[], Frame] | None:
        where = f"{self._where} at {stored.bag_ns}"
        try:
            stamp_ns, codec, payload = _parsed(stored)
            where = f"{self._where} at {stamp_ns}"
            if codec != self._codec or self._headers is None:
                self.end()
                self._codec, self._headers, self._group = codec, Headers(NAMES[codec]), None
            info = self._headers.packet(bytes(payload))
        except FrameError as error:
            raise FrameError(f"{where}: {error}", error.reason) from None
        if not info.is_picture:
            self._parameters.append(stored)
            return None
        if info.is_key:
            self.end()
            self._before, self._chain = self._group, 0
            self._group = Group(codec, number, stamp_ns, is_open=info.is_open)
        self._chain = zlib.crc32(payload, self._chain)
        packet = packet_of(number, stamp_ns, self._group, self._before, where)
        group = packet.run[-1]
        if info.lost and group.spoilt is None:
            group.spoilt, group.spoilt_by = number, AFTER_LOST
        group.packets.append((number, (*self._parameters, stored)))
        self._parameters.clear()
        size = self._headers.size
        return partial(packet_frame, packet, self._pictures, self._names, self._chain, size)


def _parser_key(topic: Topic) -> tuple[str, str]:
    kind = topic.type.replace("/msg/", "/")
    return kind, "ros" if topic.encoding in ("cdr", "ros1") else topic.encoding


class _Parsed(NamedTuple):
    stamp_ns: int
    codec: str  # FFmpeg's word
    payload: memoryview


def _parsed(stored: Stored) -> _Parsed:
    message = _PARSERS[_parser_key(stored.topic)](stored.load(), stored.topic.encoding)
    words = message.format.lower()
    if depth := next((word for word in _DEPTH if word.lower() in words), ""):
        raise FrameError(f"{depth} as video, expected color", "not a color picture")
    codec = codec_of(words)
    if not codec:
        raise FrameError(f"video of format {words[:60]!r}, expected h264 or h265", "unknown format")
    stamp_ns = message.stamp_ns if message.stamp_ns > 0 else stored.bag_ns
    return _Parsed(stamp_ns, codec, message.payload)


def codec_of(declared: str) -> str:
    """Return FFmpeg's word for the codec that a message declares; "" is none that is read."""
    first = declared.lower().partition(";")[0]
    return next((codec for word, codec in _CODECS.items() if word in first), "")


def _open_decoder(group: Group) -> Any:
    import av

    decoder = av.CodecContext.create(group.codec, "r")
    decoder.thread_count = 1  # with more, errors are told at other packets
    return decoder


def _feed(group: Group) -> Iterator[tuple[int, Any] | None]:
    import av

    at = 0
    while True:
        if at < len(group.packets):
            number, messages = group.packets[at]
            at += 1
            yield number, av.Packet(b"".join(_parsed(each).payload for each in messages))
        elif group.closed:
            return
        else:
            yield None
