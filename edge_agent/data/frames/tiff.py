"""Write and read float32 pictures as TIFF 6.0: one picture, little-endian, not compressed.

Metric depth has no other common file. Written here rather than by OpenCV, so that the same pixels
are the same bytes in every release of it, and so that no TIFF library parses what a robot received.
"""

import struct

import numpy as np

from fleet_model.errors import FrameError
from fleet_model.types import Tensor

FIRST_BYTES = b"II*\0"
_FILE_HEADER = struct.Struct("<4sI")  # where the list of entries begins
_COUNT = struct.Struct("<H")
_ENTRY = struct.Struct("<HHII")  # tag, type, count, value
_SHORT, _LONG = 3, 4
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _BEGIN, _ROWS, _SIZE = 256, 257, 258, 259, 273, 278, 279
_FLOAT = {_BITS: 32, _COMPRESSION: 1, 262: 1, 277: 1, 339: 3}  # gray, one sample, IEEE float


def write_tiff(pixels: Tensor) -> bytes:
    """Return the file of (height, width) float32; NaN and infinity stay as they are."""
    height, width = pixels.shape
    content = np.ascontiguousarray(pixels, "<f4").tobytes()
    tags = {_WIDTH: width, _HEIGHT: height, _ROWS: height, _SIZE: len(content), **_FLOAT}
    begin = _FILE_HEADER.size + _COUNT.size + (len(tags) + 1) * _ENTRY.size + 4
    tags[_BEGIN] = begin
    longs = (_WIDTH, _HEIGHT, _BEGIN, _ROWS, _SIZE)
    entries = [
        _ENTRY.pack(tag, _LONG if tag in longs else _SHORT, 1, value)
        for tag, value in sorted(tags.items())
    ]
    head = _FILE_HEADER.pack(FIRST_BYTES, _FILE_HEADER.size) + _COUNT.pack(len(entries))
    return b"".join([head, *entries, bytes(4), content])


def tiff_size(data: memoryview) -> tuple[int, int, int]:
    """Return (width, height, byte where the pixels begin) of a file as `write_tiff` writes it.

    Raises:
        FrameError: cut short, or another kind of TIFF.
        struct.error: cut inside its header.
    """
    at = _FILE_HEADER.unpack_from(data)[1]
    (count,) = _COUNT.unpack_from(data, at)
    tags = {}
    for entry in range(count):
        tag, _, values, value = _ENTRY.unpack_from(data, at + _COUNT.size + entry * _ENTRY.size)
        tags[tag] = value if values == 1 else -1
    width, height = tags.get(_WIDTH, -1), tags.get(_HEIGHT, -1)
    begin, size = tags.get(_BEGIN, -1), tags.get(_SIZE, -1)
    fits = width > 0 and height > 0 and begin > 0 and size == width * height * 4
    if not fits or any(tags.get(tag) != value for tag, value in _FLOAT.items()):
        raise FrameError(
            "a tiff of another kind, expected one float32 strip without compression",
            "unknown format",
        )
    if begin + size > len(data):
        raise FrameError(f"a tiff that was cut short ({len(data)} bytes)", "damaged tiff")
    return width, height, begin


def read_tiff(data: bytes | memoryview) -> Tensor:
    """Return (height, width) float32, the caller's own; raises as `tiff_size` does."""
    width, height, begin = tiff_size(memoryview(data))
    pixels = np.frombuffer(data, "<f4", width * height, begin)
    return pixels.astype(np.float32).reshape(height, width)
