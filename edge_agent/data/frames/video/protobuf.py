"""Parse a foxglove.CompressedVideo in Protocol Buffers: an mcap of Foxglove's own recorders.

The wire format is a list of (field number, kind, value); unknown fields are passed over
(protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Iterator

from edge_agent.data.frames.cdr import VideoPacket
from fleet_model.errors import FrameError
from fleet_model.types import NS_PER_S

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}


def parse_protobuf_video(data: bytes | memoryview, _: str) -> VideoPacket:
    """Return the fields of a foxglove.CompressedVideo.

    Raises:
        FrameError: "bad message": a length leads out of the message.
    """
    view = memoryview(data)
    stamp_ns, frame_id, name, payload = 0, "", "", view[:0]
    try:
        for number, value in _fields(view):
            if isinstance(value, int):
                continue
            if number == 1:
                time = {n: v for n, v in _fields(value) if isinstance(v, int)}
                stamp_ns = time.get(1, 0) * NS_PER_S + time.get(2, 0)
            elif number == 2:
                frame_id = str(value, "utf-8", "replace")
            elif number == 3:
                payload = value
            elif number == 4:
                name = str(value, "utf-8", "replace")
    except IndexError:
        raise FrameError(
            f"a message of {len(view)} bytes is no foxglove.CompressedVideo", "bad message"
        ) from None
    return VideoPacket(stamp_ns, frame_id, name, payload)


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(view, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(view, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise IndexError
        if at + size > len(view):
            raise IndexError
        if kind == _BYTES:
            yield number, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value if value < 1 << 63 else value - (1 << 64), at
    raise IndexError
