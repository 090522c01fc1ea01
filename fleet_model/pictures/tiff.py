"""Read and write TIFF 6.0: numbers of any kind that no other image file holds, and plain pictures.

What is written is one strip that is not compressed. The same pixels are the same bytes in every
release of OpenCV, and no TIFF library parses what a robot received.
"""

import struct
from typing import NamedTuple

import numpy as np

from fleet_model.errors import FrameError
from fleet_model.pictures.tiff_strips import PACKED, sum_of_differences, unpack
from fleet_model.types import Tensor

FIRST_BYTES = b"II*\0"
BIG_ENDIAN = b"MM\0*"
_SHORT, _LONG = 3, 4
_TYPES = {1: "u1", _SHORT: "u2", _LONG: "u4"}
_ENTRY_BYTES = 12
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _MEANING = 254, 256, 257, 258, 259, 262
_FILL, _BEGIN, _ORIENTATION, _CHANNELS, _ROWS, _SIZE, _PLANES = 266, 273, 274, 277, 278, 279, 284
_PREDICTOR, _COLORS, _TILES, _EXTRA, _FORMAT = 317, 320, 322, 338, 339
_KINDS = {1: "u", 2: "i", 3: "f"}  # by sample format
_FORMATS = {kind: number for number, kind in _KINDS.items()}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = 0, 1, 2, 3
_SAMPLES = frozenset(
    {("u", 1), ("u", 8), ("u", 16), ("i", 8), ("i", 16), ("i", 32), ("f", 32), ("f", 64)}
)
_MOST_FROM_A_BYTE = 2731  # bytes that LZW, the best of them, can make of one


class TiffLayout(NamedTuple):
    """What a file says of its first picture."""

    width: int
    height: int
    kind: str  # of samples, as NumPy calls it: "u", "i" or "f"
    bits: int
    channels: int
    orientation: int  # as in EXIF, 1 to 8
    order: str  # "<" or ">"
    meaning: int
    compression: int
    rows: int  # of a strip
    has_planes: bool  # all strips of the first channel come before those of the second
    has_differences: bool
    strips: list[tuple[int, int]]  # first byte, size
    colors: list[int]  # of a palette: red, green, blue of all entries, 16 bits


def write_tiff(pixels: Tensor) -> bytes:
    """Return the file of (height, width) or (height, width, channels) numbers, their bits kept."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    content = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()
    bits, kind = pixels.itemsize * 8, _FORMATS[pixels.dtype.kind]
    shorts = {_BITS: [bits] * channels, _COMPRESSION: [1], _MEANING: [_BLACK_IS_ZERO]}
    shorts |= {_CHANNELS: [channels], _FORMAT: [kind] * channels}
    if channels > 1:
        shorts[_EXTRA] = [0] * (channels - 1)
    count = len(shorts) + 5
    more_at = 8 + 2 + count * _ENTRY_BYTES + 4  # numbers that do not fit into their entries
    begin = more_at + sum(len(v) * 2 + len(v) % 2 * 2 for v in shorts.values() if len(v) > 2)
    longs = {_WIDTH: width, _HEIGHT: height, _BEGIN: begin, _ROWS: height, _SIZE: len(content)}
    entries = {tag: struct.pack("<HHII", tag, _LONG, 1, value) for tag, value in longs.items()}
    more = b""
    for tag, values in sorted(shorts.items()):
        packed = struct.pack(f"<{len(values)}H", *values)
        packed += bytes(-len(packed) % 4)
        if len(packed) > 4:
            more, packed = more + packed, struct.pack("<I", more_at + len(more))
        entries[tag] = struct.pack("<HHI", tag, _SHORT, len(values)) + packed
    head = struct.pack("<4sIH", FIRST_BYTES, 8, count)
    return b"".join([head, *(entries[tag] for tag in sorted(entries)), bytes(4), more, content])


def tiff_layout(data: memoryview) -> TiffLayout:
    """Return what a file says of itself, after a check that it can be read.

    Raises:
        FrameError: cut short, or of a kind that is not read.
        struct.error: cut inside its header.
    """
    order = "<" if data[:4] == FIRST_BYTES else ">"
    tags, following = _entries(data, order, struct.unpack_from(f"{order}4xI", data)[0])
    if following and not _entries(data, order, following)[0].get(_SUBFILE, [0])[0] & 1:
        raise _unread("several pictures in it")

    def first(tag: int, otherwise: int) -> int:
        return tags.get(tag, [otherwise])[0]

    height = first(_HEIGHT, 0)
    layout = TiffLayout(
        width=first(_WIDTH, 0),
        height=height,
        kind=_KINDS.get(first(_FORMAT, 1), "?"),
        bits=first(_BITS, 1),
        channels=first(_CHANNELS, 1),
        orientation=first(_ORIENTATION, 1),
        order=order,
        meaning=first(_MEANING, -1),
        compression=first(_COMPRESSION, 1),
        rows=min(first(_ROWS, height), height),
        has_planes=first(_PLANES, 1) != 1,
        has_differences=first(_PREDICTOR, 1) == 2,
        strips=list(zip(tags.get(_BEGIN, []), tags.get(_SIZE, []), strict=False)),
        colors=tags.get(_COLORS, []) if first(_MEANING, -1) == _PALETTE else [],
    )
    is_mixed = any(len(set(tags.get(tag, []))) > 1 for tag in (_BITS, _FORMAT))
    if is_mixed or _TILES in tags or first(_FILL, 1) != 1 or first(_PREDICTOR, 1) not in (1, 2):
        raise _unread("tiles, or samples that differ from each other")
    _check_kind(layout)
    if len(layout.strips) < _strip_count(layout):
        raise _cut(data)
    if any(begin + size > len(data) for begin, size in layout.strips):
        raise _cut(data)
    return layout


def read_tiff(data: bytes | memoryview, layout: TiffLayout) -> Tensor:
    """Return the samples as they are, or the gray or colors that they stand for.

    Returns:
        (height, width) or (height, width, channels), the caller's own; color in the order R, G, B.

    Raises:
        FrameError: the strips are damaged.
    """
    view, planes = memoryview(data), layout.channels if layout.has_planes else 1
    found = [_plane(view, layout, plane, layout.channels // planes) for plane in range(planes)]
    pixels = np.concatenate(found, axis=2) if planes > 1 else found[0]
    pixels = pixels[..., 0] if layout.channels == 1 else pixels
    if layout.meaning == _WHITE_IS_ZERO:
        return np.asarray(np.iinfo(pixels.dtype).max - pixels)
    return _in_colors(pixels, layout.colors) if layout.meaning == _PALETTE else pixels


def _check_kind(layout: TiffLayout) -> None:
    kind, bits, channels = layout[2:5]
    meanings = {_BLACK_IS_ZERO} if kind != "u" or bits == 16 else {_WHITE_IS_ZERO, _BLACK_IS_ZERO}
    if (kind, bits) == ("u", 8) and len(layout.colors) == 3 * 256:
        meanings.add(_PALETTE)
    is_gray = layout.meaning in meanings and (channels == 1 or layout.meaning == _BLACK_IS_ZERO)
    is_color = layout.meaning == _RGB and channels in (3, 4)
    known = (kind, bits) in _SAMPLES and layout.compression in PACKED
    if not known or not (is_gray or is_color) or not channels or (bits == 1 and channels > 1):
        raise _unread(f"{channels} channels of {bits} bits, compression {layout.compression}")
    if layout.has_differences and (kind == "f" or bits == 1):
        raise _unread("differences of floating-point numbers")
    packed = sum(size for _, size in layout.strips)
    if layout.height * _row_bytes(layout, channels) > packed * _MOST_FROM_A_BYTE:
        raise FrameError(
            f"a tiff of {packed} bytes claims {layout.width} x {layout.height} pixels", "bad size"
        )


def _strip_count(layout: TiffLayout) -> int:
    """Return how many strips there must be; one where the header has no rows."""
    one_plane = -(-layout.height // max(1, layout.rows))
    return max(1, one_plane * (layout.channels if layout.has_planes else 1))


def _row_bytes(layout: TiffLayout, channels: int) -> int:
    return (layout.width * channels * layout.bits + 7) // 8


def _plane(data: memoryview, layout: TiffLayout, number: int, channels: int) -> Tensor:
    """Return (height, width, channels) of the strips of one plane."""
    width, height, rows = layout.width, layout.height, layout.rows
    row_bytes, parts = _row_bytes(layout, channels), []
    count = -(-height // rows)
    for at, (begin, size) in enumerate(layout.strips[number * count : (number + 1) * count]):
        expected = min(rows, height - at * rows) * row_bytes
        parts.append(unpack(data[begin : begin + size], layout.compression, expected))
    content = np.frombuffer(b"".join(parts), np.uint8).reshape(height, row_bytes)
    if layout.bits == 1:
        return np.unpackbits(content, axis=1)[:, :width, np.newaxis] * np.uint8(255)
    stored = np.dtype(f"{layout.order}{layout.kind}{layout.bits // 8}")
    samples = content.view(stored).reshape(height, width, channels)
    samples = samples.astype(stored.newbyteorder("="))
    return sum_of_differences(samples) if layout.has_differences else samples


def _in_colors(numbers: Tensor, colors: list[int]) -> Tensor:
    palette = np.array(colors, np.uint32).reshape(3, 256).T
    if palette.max() > 255:  # some writers have 8 bits in them
        palette = (palette + 128) // 257
    return palette.astype(np.uint8)[numbers]


def _entries(data: memoryview, order: str, at: int) -> tuple[dict[int, list[int]], int]:
    """Return tag -> numbers, of those that hold whole numbers, and where the next list begins."""
    (count,) = struct.unpack_from(f"{order}H", data, at)
    tags = {}
    for entry in range(at + 2, at + 2 + count * _ENTRY_BYTES, _ENTRY_BYTES):
        tag, kind, values, begin = struct.unpack_from(f"{order}HHII", data, entry)
        if kind not in _TYPES or not values:
            continue
        stored = np.dtype(order + _TYPES[kind])
        size = stored.itemsize * values
        if size <= 4:
            begin = entry + 8
        elif begin + size > len(data):
            raise struct.error("an entry's numbers lie behind the end")
        tags[tag] = np.frombuffer(data, stored, values, begin).tolist()
    return tags, struct.unpack_from(f"{order}I", data, at + 2 + count * _ENTRY_BYTES)[0]


def _cut(data: memoryview) -> FrameError:
    return FrameError(f"a tiff that was cut short ({len(data)} bytes)", "damaged tiff")


def _unread(what: str) -> FrameError:
    return FrameError(
        f"a tiff of another kind ({what}); expected strips of 8 or 16 bits, or numbers; convert it "
        "to PNG",
        "unknown format",
    )
