"""Read size and depth of an image file from its bytes, and whether it is whole.

Nothing is decoded: a JPEG takes a few microseconds, so frames can be checked and passed through
by the ten thousand a second. A claimed size that the bytes cannot possibly hold is refused here,
before a decoder makes room for it.
"""

import re
import struct
from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

from fleet_model.errors import FrameError
from fleet_model.pictures import tiff
from fleet_model.pictures.exif import EXIF, read_orientation

FIRST_BYTES = {
    "jpeg": b"\xff\xd8\xff",
    "png": b"\x89PNG\r\n\x1a\n",
    "webp": b"RIFF",
    "bmp": b"BM",
    "tiff": tiff.FIRST_BYTES,
}
# What is known but not read: the first bytes, and where they are.
_NOT_READ = (
    ("avif", 4, b"ftypavi"),
    ("heic", 4, b"ftyphei"),
    ("heic", 4, b"ftypmif1"),
    ("jpeg 2000", 0, b"\0\0\0\x0cjP  "),
    ("jpeg 2000", 0, b"\xff\x4f\xff\x51"),
    ("jpeg xl", 0, b"\0\0\0\x0cJXL "),
    ("jpeg xl", 0, b"\xff\x0a"),
    ("gif", 0, b"GIF8"),
    ("openexr", 0, b"\x76\x2f\x31\x01"),
    ("bigtiff", 0, b"II+\0"),
    ("bigtiff", 0, b"MM\0+"),
    *(("pnm", 0, f"P{number}{space}".encode()) for number in range(1, 8) for space in " \n\r\t"),
)
MAX_PIXELS = 2**27  # 400 MB of RGB, whatever a header claims

_JPEG_SEGMENT = struct.Struct(">BBH")
_JPEG_FRAME = struct.Struct(">BHHB")  # bits, height, width, components
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15
_JPEG_ARITHMETIC = 0xC9  # this SOF and later ones
_JPEG_SCAN, _JPEG_END, _JPEG_EXIF = 0xDA, 0xD9, 0xE1
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # within a scan: what ends it
# The component with the finest sampling has a block for every 64 pixels, and a Huffman code has at
# least one bit; arithmetic coding can go below that.
_JPEG_PIXELS_A_BIT = 64
_JPEG_PIXELS_A_BIT_ARITHMETIC = 4096

_PNG_CHUNK = struct.Struct(">I4s")
_PNG_HEADER = struct.Struct(">IIBBBBB")
_PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by color type
_PNG_BITS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_DEFLATE_LIMIT = 1032  # bytes that one byte of deflate can stand for


class ImageHeader(NamedTuple):
    """What an image file says about itself."""

    format: str  # a key of FIRST_BYTES
    width: int  # pixels as stored
    height: int
    bits: int  # of one sample: 8; of PNG 1 to 16, of JPEG also 12, of TIFF 1 to 64
    channels: int  # 1 gray, 2 gray with alpha, 3 color (also of a palette), 4 color with alpha
    kind: str = "u"  # of samples, as NumPy calls it: "u"; of TIFF also "i" and "f"
    orientation: int = 1  # by EXIF, 1 to 8: how the stored pixels are to be turned


def read_header(data: bytes | memoryview, declared: str = "") -> ImageHeader:
    """Return what the file says, after a check that its structure is complete.

    A PNG's checksums are compared. What only a decoder can see in a JPEG or WebP is not found: a
    flipped bit inside, or a JPEG that lost its end and was given the end marker all the same.

    Args:
        data: the whole file.
        declared: what its sender or its name calls it, for the error.

    Raises:
        FrameError: empty, cut short, damaged or of another format; `reason` says which. The
            message does not name the frame.
    """
    view = memoryview(data)
    if not view:
        raise FrameError("no data", "empty")
    name = image_format(view, "")
    try:
        if not name:
            raise _unknown(bytes(view[:12]))
        header = _READERS[name](view)
    except (struct.error, IndexError):  # the bytes end inside a header
        raise _cut(name, view) from None
    except FrameError as error:
        if not declared or error.reason != "unknown format":
            raise
        raise FrameError(f"{error}, declared as {declared[:60]!r}", error.reason) from None
    if not 0 < header.width * header.height <= MAX_PIXELS:
        raise FrameError(
            f"a {name} of {header.width} x {header.height} pixels, expected 1 to {MAX_PIXELS}",
            "bad size",
        )
    return header


def image_format(data: bytes | memoryview, declared: str) -> str:
    """Return a key of FIRST_BYTES by the first bytes, else what was declared."""
    start = bytes(data[:12])
    for name, first in (*FIRST_BYTES.items(), ("tiff", tiff.BIG_ENDIAN)):
        if start.startswith(first) and (name != "webp" or start.endswith(b"WEBP")):
            return name
    return declared


def _unknown(start: bytes) -> FrameError:
    names = ", ".join(FIRST_BYTES)
    for name, at, first in _NOT_READ:
        if start.startswith(first, at):
            return FrameError(f"{name} is not read; convert it to one of {names}", "unknown format")
    return FrameError(f"none of {names}", "unknown format")


def _read_jpeg(data: memoryview) -> ImageHeader:
    header, pixels_a_bit, scan = _jpeg_until_scan(data)
    if not _ends_with_jpeg_end(data, scan):
        raise _cut("jpeg", data)
    if header.width * header.height > 8 * len(data) * pixels_a_bit:
        raise _too_large(header, data)
    return header


def _jpeg_until_scan(data: memoryview) -> tuple[ImageHeader, int, int]:
    """Return (header, pixels that a bit can stand for, byte where the first scan begins)."""
    header, pixels_a_bit, at, orientation = None, _JPEG_PIXELS_A_BIT, 2, 1
    while True:
        first, marker, length = _JPEG_SEGMENT.unpack_from(data, at)
        if first == marker == 0xFF:  # a fill byte
            at += 1
            continue
        if first != 0xFF or marker < 0xC0 or 0xD0 <= marker <= _JPEG_END or length < 2:
            raise _damaged("jpeg", f"no segment at byte {at}")
        if marker in _JPEG_FRAMES:
            bits, height, width, channels = _JPEG_FRAME.unpack_from(data, at + 4)
            header = ImageHeader("jpeg", width, height, bits, channels)
            if marker >= _JPEG_ARITHMETIC:
                pixels_a_bit = _JPEG_PIXELS_A_BIT_ARITHMETIC
        elif marker == _JPEG_EXIF and data[at + 4 : at + 4 + len(EXIF)] == EXIF:
            orientation = read_orientation(data[at + 4 : at + 2 + length])
        at += 2 + length
        if marker == _JPEG_SCAN:
            break
    if header is None:
        raise _damaged("jpeg", "a scan before the frame header")
    return header._replace(orientation=orientation), pixels_a_bit, at


def _ends_with_jpeg_end(data: memoryview, scan: int) -> bool:
    """Return whether the end marker comes after the scan; some cameras fill up behind it."""
    size = len(data)
    if size >= scan + 2 and data[size - 2] == 0xFF and data[size - 1] == _JPEG_END:
        return True
    while found := _JPEG_MARKER.search(data, scan):
        at = found.start()
        if data[at + 1] == _JPEG_END:
            return True
        if at + 4 > size:
            return False
        scan = at + 2 + max(2, _JPEG_SEGMENT.unpack_from(data, at)[2])
    return False


def _read_png(data: memoryview) -> ImageHeader:
    at = len(FIRST_BYTES["png"])
    length, kind = _PNG_CHUNK.unpack_from(data, at)
    if kind != b"IHDR" or length != _PNG_HEADER.size:
        raise _damaged("png", "its first chunk is no header")
    width, height, bits, color, *_ = _PNG_HEADER.unpack_from(data, at + 8)
    packed, orientation = 0, 1  # bytes of deflate
    while kind != b"IEND":
        length, kind = _PNG_CHUNK.unpack_from(data, at)
        end = at + 8 + length
        if crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            if end + 4 > len(data):
                raise _cut("png", data)
            raise _damaged("png", f"checksum of the chunk at byte {at}")
        packed += length if kind == b"IDAT" else 0
        if kind == b"eXIf":
            orientation = read_orientation(data[at + 8 : end])
        at = end + 4
    if bits not in _PNG_BITS.get(color, ()):
        raise _damaged("png", f"color type {color} with {bits} bits")
    header = ImageHeader("png", width, height, bits, _PNG_SAMPLES[color], "u", orientation)
    row = width * bits * (1 if color == 3 else header.channels) // 8
    if height * row > packed * _DEFLATE_LIMIT:
        raise _too_large(header, data)
    return header


def _read_webp(data: memoryview) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data) or size < 4 + 8:
        raise _cut("webp", data)
    kind, at = bytes(data[12:16]), 20
    if kind == b"VP8X":
        flags = data[at]
        width = int.from_bytes(data[at + 4 : at + 7], "little") + 1
        height = int.from_bytes(data[at + 7 : at + 10], "little") + 1
        channels, orientation = 4 if flags & 0x10 else 3, _webp_orientation(data, size + 8)
        return ImageHeader("webp", width, height, 8, channels, "u", orientation)
    if kind == b"VP8L" and data[at] == 0x2F:
        (packed,) = struct.unpack_from("<I", data, at + 1)
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
        return ImageHeader("webp", width, height, 8, 4 if packed >> 28 & 1 else 3)
    if kind == b"VP8 " and bytes(data[at + 3 : at + 6]) == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, at + 6)
        return ImageHeader("webp", width & 0x3FFF, height & 0x3FFF, 8, 3)
    raise _damaged("webp", f"no picture in its first chunk {kind!r}")


def _webp_orientation(data: memoryview, end: int) -> int:
    at = 12
    while at + 8 <= end:
        kind, size = bytes(data[at : at + 4]), int.from_bytes(data[at + 4 : at + 8], "little")
        if kind == b"EXIF":
            return read_orientation(data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return 1


def _read_bmp(data: memoryview) -> ImageHeader:
    begin, header_size = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        packing = 0
    elif 40 <= header_size <= 124:
        width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
    else:
        raise _damaged("bmp", f"a header of {header_size} bytes")
    if width < 0 or bits not in (1, 4, 8, 16, 24, 32):
        raise _damaged("bmp", f"{width} pixels a row of {bits} bits")
    header = ImageHeader("bmp", width, abs(height), 8, 4 if bits == 32 else 3)
    row = (width * bits + 31) // 32 * 4
    if packing in (0, 3) and begin + row * abs(height) > len(data):
        raise _cut("bmp", data)
    return header


def _read_tiff(data: memoryview) -> ImageHeader:
    layout = tiff.tiff_layout(data)
    channels = 3 if layout.colors else layout.channels
    width, height, kind, bits = layout[:4]
    bits = max(bits, 8)  # as they are read
    return ImageHeader("tiff", width, height, bits, channels, kind, layout.orientation)


_READERS: dict[str, Callable[[memoryview], ImageHeader]] = {
    "jpeg": _read_jpeg,
    "png": _read_png,
    "webp": _read_webp,
    "bmp": _read_bmp,
    "tiff": _read_tiff,
}


def _cut(name: str, data: memoryview) -> FrameError:
    reason = f"cut {name}" if name in ("jpeg", "png") else f"damaged {name}"
    return FrameError(f"a {name} that was cut short ({len(data)} bytes)", reason)


def _damaged(name: str, what: str) -> FrameError:
    return FrameError(f"a damaged {name}: {what}", f"damaged {name}")


def _too_large(header: ImageHeader, data: memoryview) -> FrameError:
    claimed = f"{header.width} x {header.height} pixels"
    return FrameError(f"a {header.format} of {len(data)} bytes claims {claimed}", "bad size")
