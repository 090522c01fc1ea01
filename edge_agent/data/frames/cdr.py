"""Parse the message types that are read here, without a copy of the payload.

A serialized message is CDR (ROS 2: XCDR1, either byte order, 4-byte encapsulation, fields aligned)
or "ros1" (ROS 1: little-endian, nothing aligned, a sequence number before the stamp). The types
never changed, so definitions are not needed. Every length is checked against the bytes there are.
"""

import struct
from typing import NamedTuple, NoReturn

from edge_agent.data.pictures.raw import RawLayout
from fleet_model.errors import FrameError
from fleet_model.types import NS_PER_S

# First two bytes of a message: plain CDR as rosbag2 writes it, and plain XCDR2, which for these
# types is the same but for the number.
_BYTE_ORDERS = {b"\0\0": ">", b"\0\1": "<", b"\0\6": ">", b"\0\7": "<"}
_XCDR2 = (6, 7)  # aligns eight bytes to four
_STAMPS = {order: struct.Struct(f"{order}iII") for order in "<>"}  # s, ns, length of frame_id
_SIZES = {order: struct.Struct(f"{order}III") for order in "<>"}  # rows, columns, length of text
_COUNTS = {order: struct.Struct(f"{order}I") for order in "<>"}
_PAIRS = {order: struct.Struct(f"{order}II") for order in "<>"}
_ROS1_STAMP = struct.Struct("<IIII")  # sequence, s, ns, length of frame_id


class RawImage(NamedTuple):
    """A sensor_msgs/Image."""

    stamp_ns: int  # of the header; 0 where it was not set
    frame_id: str
    layout: RawLayout
    payload: memoryview  # the pixels, inside the message's own bytes


class CompressedImage(NamedTuple):
    """A sensor_msgs/CompressedImage."""

    stamp_ns: int  # of the header; 0 where it was not set
    frame_id: str
    format: str  # "jpeg", "bgr8; jpeg compressed bgr8", "16UC1; compressedDepth png", ...
    payload: memoryview  # the file, inside the message's own bytes


class VideoPacket(NamedTuple):
    """A foxglove_msgs/CompressedVideo or an ffmpeg_image_transport_msgs/FFMPEGPacket."""

    stamp_ns: int  # of the header; 0 where it was not set
    frame_id: str
    format: str  # "h264", "libx264", "hevc;yuv420p;bgr8;bgr8", ...
    payload: memoryview  # the packet, inside the message's own bytes


def parse_image(data: bytes | memoryview, encoding: str) -> RawImage:
    """Return the fields of a sensor_msgs/Image; `encoding` is "cdr" or "ros1".

    Raises:
        FrameError: "bad message": a length leads out of the message.
    """
    view = memoryview(data)
    try:
        stamp_ns, frame_id, at, order = _header(view, encoding)
        aligned = encoding != "ros1"
        height, width, length = _SIZES[order].unpack_from(view, at)
        text, at = _text(view, at + 12, length)
        is_bigendian, at = view[at], at + 1
        if aligned:
            at = at + 3 & ~3
        step, size = _PAIRS[order].unpack_from(view, at)
    except (struct.error, IndexError):
        _refuse(view)
    layout = RawLayout(text, height, width, step, bool(is_bigendian))
    return RawImage(stamp_ns, frame_id, layout, _payload(view, at + 8, size))


def parse_compressed(data: bytes | memoryview, encoding: str) -> CompressedImage:
    """Return the fields of a sensor_msgs/CompressedImage; see `parse_image`."""
    view = memoryview(data)
    try:
        stamp_ns, frame_id, at, order = _header(view, encoding)
        (length,) = _COUNTS[order].unpack_from(view, at)
        text, at = _text(view, at + 4, length)
        if encoding != "ros1":
            at = at + 3 & ~3
        (size,) = _COUNTS[order].unpack_from(view, at)
    except (struct.error, IndexError):
        _refuse(view)
    return CompressedImage(stamp_ns, frame_id, text, _payload(view, at + 4, size))


def parse_video(data: bytes | memoryview, encoding: str) -> VideoPacket:
    """Return the fields of a foxglove_msgs/CompressedVideo; see `parse_image`."""
    view = memoryview(data)
    try:
        if encoding == "ros1":
            seconds, nanoseconds, length = _STAMPS["<"].unpack_from(view)
            stamp_ns, order, aligned = seconds * NS_PER_S + nanoseconds, "<", False
            frame_id, at = _text(view, 12, length)
        else:
            stamp_ns, frame_id, at, order = _header(view, encoding)
            aligned = True
        (size,) = _COUNTS[order].unpack_from(view, at)
        payload = _payload(view, at + 4, size)
        at += 4 + size
        if aligned:
            at = at + 3 & ~3
        (length,) = _COUNTS[order].unpack_from(view, at)
        text, _ = _text(view, at + 4, length)
    except (struct.error, IndexError):
        _refuse(view)
    return VideoPacket(stamp_ns, frame_id, text, payload)


def parse_ffmpeg(data: bytes | memoryview, encoding: str) -> VideoPacket:
    """Return the fields of an ffmpeg_image_transport_msgs/FFMPEGPacket; see `parse_image`."""
    view = memoryview(data)
    try:
        stamp_ns, frame_id, at, order = _header(view, encoding)
        aligned = encoding != "ros1"
        (length,) = _COUNTS[order].unpack_from(view, at + 8)  # behind width and height
        text, at = _text(view, at + 12, length)
        if aligned:
            wide = 4 if view[1] in _XCDR2 else 8
            at = 4 + (at - 4 + wide - 1 & -wide)  # uint64 pts, counted behind the encapsulation
        at += 10  # pts, flags, is_bigendian
        if aligned:
            at = at + 3 & ~3
        (size,) = _COUNTS[order].unpack_from(view, at)
    except (struct.error, IndexError):
        _refuse(view)
    return VideoPacket(stamp_ns, frame_id, text, _payload(view, at + 4, size))


def parse_header(data: bytes | memoryview) -> tuple[int, str]:
    """Return (stamp in ns, frame_id) of a CDR message that begins with a std_msgs/Header."""
    view = memoryview(data)
    try:
        return _header(view, "cdr")[:2]
    except (struct.error, IndexError):
        _refuse(view)


def parse_text(data: bytes | memoryview, encoding: str) -> str:
    """Return the text of a std_msgs/String; see `parse_image`."""
    view = memoryview(data)
    try:
        order, at = ("<", 0) if encoding == "ros1" else (_order(view), 4)
        (length,) = _COUNTS[order].unpack_from(view, at)
        return _text(view, at + 4, length)[0]
    except (struct.error, IndexError):
        _refuse(view)


def _header(view: memoryview, encoding: str) -> tuple[int, str, int, str]:
    """Return (stamp in ns, frame_id, where the next field is, byte order)."""
    if encoding == "ros1":
        _, seconds, nanoseconds, length = _ROS1_STAMP.unpack_from(view)
        frame_id, at = _text(view, 16, length)
        return seconds * NS_PER_S + nanoseconds, frame_id, at, "<"
    order = _order(view)
    # The encapsulation has four bytes, so places can be aligned from its begin as well.
    seconds, nanoseconds, length = _STAMPS[order].unpack_from(view, 4)
    frame_id, at = _text(view, 16, length)
    return seconds * NS_PER_S + nanoseconds, frame_id, at + 3 & ~3, order


def _order(view: memoryview) -> str:
    order = _BYTE_ORDERS.get(bytes(view[:2]))
    if order is None or len(view) < 4:
        begin = bytes(view[:4]).hex(" ")
        raise FrameError(
            f"a message of {len(view)} bytes that begins {begin!r}, expected CDR", "bad message"
        )
    return order


def _text(view: memoryview, at: int, length: int) -> tuple[str, int]:
    """Return the string that begins at a byte and the byte behind it."""
    end = at + length
    if end > len(view):
        _refuse(view)
    return str(view[at:end], "utf-8", "replace").rstrip("\0"), end


def _payload(view: memoryview, at: int, size: int) -> memoryview:
    if at + size > len(view):
        raise FrameError(
            f"a message of {len(view)} bytes with {size} bytes of data from byte {at}",
            "bad message",
        )
    return view[at : at + size]


def _refuse(view: memoryview) -> NoReturn:
    raise FrameError(f"a message of {len(view)} bytes ends inside its fields", "bad message")
