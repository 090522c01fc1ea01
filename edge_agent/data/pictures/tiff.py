"""Read and write TIFF 6.0: numbers of any kind that no other image file holds, and plain pictures.

What is written is one strip that is not compressed, by NumPy, so that the same pixels are the same
bytes in every release of OpenCV. Such files are read by NumPy, too. Others are left to OpenCV, once
what they say of themselves is what it reads right: strips of 8 and 16 bits, LZW, deflate, palettes.
"""

import struct
from typing import NamedTuple

import numpy as np

from fleet_model.errors import FrameError
from fleet_model.types import Tensor

FIRST_BYTES = b"II*\0"
BIG_ENDIAN = b"MM\0*"
_SHORT, _LONG = 3, 4
_TYPES = {1: "u1", _SHORT: "u2", _LONG: "u4"}
_ENTRY_BYTES = 12
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _MEANING = 254, 256, 257, 258, 259, 262
_BEGIN, _ORIENTATION, _CHANNELS, _ROWS, _SIZE, _PLANES = 273, 274, 277, 278, 279, 284
_TILES, _EXTRA, _FORMAT = 322, 338, 339
_KINDS = {1: "u", 2: "i", 3: "f"}  # by sample format
_FORMATS = {kind: number for number, kind in _KINDS.items()}
_NOT_PACKED = 1
_PACKED = {5: 2731, 8: 1032, 32946: 1032, 32773: 64}  # LZW, deflate, PackBits: bytes from one byte
_RGB, _PALETTE = 2, 3
# Kind, bits, channels, meaning that OpenCV reads as they are. With 4 channels it multiplies colors
# by alpha as soon as the file says that the fourth one is alpha.
_READABLE = frozenset(
    [("u", bits, 1, meaning) for bits in (1, 8) for meaning in (0, 1)]
    + [("u", 8, 1, _PALETTE), ("u", 16, 1, 1)]
    + [("u", bits, channels, _RGB) for bits in (8, 16) for channels in (3, 4)]
    + [(f"{kind}", bits, 1, 1) for kind, bits in (("f", 32), ("f", 64), ("i", 8), ("i", 16))]
    + [("i", 32, 1, 1), ("f", 32, 3, _RGB)]
)


class TiffLayout(NamedTuple):
    """What a file says of its first picture."""

    width: int
    height: int
    kind: str  # of samples, as NumPy calls it: "u", "i" or "f"
    bits: int
    channels: int
    orientation: int  # as in EXIF, 1 to 8
    begin: int  # byte of its only strip where that is not compressed; 0: OpenCV reads it
    order: str  # "<" or ">"
    is_palette: bool


def write_tiff(pixels: Tensor) -> bytes:
    """Return the file of (height, width) or (height, width, channels) numbers, their bits kept."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    content = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()
    bits, kind = pixels.itemsize * 8, _FORMATS[pixels.dtype.kind]
    shorts = {_BITS: [bits] * channels, _COMPRESSION: [_NOT_PACKED], _MEANING: [1]}
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
    width, height = (tags.get(tag, [0])[0] for tag in (_WIDTH, _HEIGHT))
    channels, compression = (tags.get(tag, [1])[0] for tag in (_CHANNELS, _COMPRESSION))
    bits, kinds = set(tags.get(_BITS, [1])), set(tags.get(_FORMAT, [1]))
    kind = _KINDS.get(next(iter(kinds), 0), "")
    if len(bits) != 1 or len(kinds) != 1 or not kind or not channels:
        raise _unread(f"samples of {sorted(bits)} bits and the formats {sorted(kinds)}")
    layout = TiffLayout(
        width, height, kind, bits.pop(), channels, tags.get(_ORIENTATION, [1])[0], 0, order,
        tags.get(_MEANING) == [_PALETTE],
    )  # fmt: skip
    if _TILES in tags or (channels > 1 and tags.get(_PLANES, [1]) != [1]):
        raise _unread("tiles or planes")
    strips = list(zip(tags.get(_BEGIN, []), tags.get(_SIZE, []), strict=False))
    if not strips or any(begin + size > len(data) for begin, size in strips):
        raise FrameError(f"a tiff that was cut short ({len(data)} bytes)", "damaged tiff")
    size = height * ((width * channels * layout.bits + 7) // 8)
    packed = sum(size for _, size in strips)
    if (
        compression == _NOT_PACKED
        and len(strips) == 1
        and packed == size
        and _is_plain(tags, layout)
    ):
        return layout._replace(begin=strips[0][0])
    is_alpha = channels == 4 and _EXTRA in tags
    names = (kind, layout.bits, channels, tags.get(_MEANING, [-1])[0])
    if names not in _READABLE or is_alpha or compression not in (_NOT_PACKED, *_PACKED):
        raise _unread(f"{channels} channels of {layout.bits} bits, compression {compression}")
    if size > packed * _PACKED.get(compression, 1):
        raise FrameError(
            f"a tiff of {len(data)} bytes claims {width} x {height} pixels", "bad size"
        )
    return layout


def read_tiff(data: bytes | memoryview, layout: TiffLayout) -> Tensor:
    """Return (height, width[, channels]) of the strip at `layout.begin`, the caller's own."""
    width, height, kind, bits, channels = layout[:5]
    stored = np.dtype(f"{layout.order}{kind}{bits // 8}")
    pixels = np.frombuffer(data, stored, width * height * channels, layout.begin)
    shape = (height, width, channels) if channels > 1 else (height, width)
    return pixels.astype(stored.newbyteorder("=")).reshape(shape)


def _is_plain(tags: dict[int, list[int]], layout: TiffLayout) -> bool:
    """Return whether the samples are the pixels, and NumPy knows their type."""
    has_type = (layout.kind, layout.bits) in {(k, b) for k in "ui" for b in (8, 16, 32)} | {
        ("f", 32),
        ("f", 64),
    }
    return has_type and tags.get(_MEANING) in ([1], [_RGB])


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


def _unread(what: str) -> FrameError:
    return FrameError(
        f"a tiff of another kind ({what}); expected strips of 8 or 16 bits, or numbers; convert it "
        "to PNG",
        "unknown format",
    )
