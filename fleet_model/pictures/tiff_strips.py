"""Unpack the strips of a TIFF: LZW, deflate, PackBits, differences between neighbors.

Not by OpenCV: it shows strips that libtiff finds damaged as black, and complains on the terminal.
"""

import zlib
from collections.abc import Callable

import numpy as np

from fleet_model.errors import FrameError
from fleet_model.types import Tensor

_CLEAR, _END = 256, 257
# Bits of the codes since the last _CLEAR: the table grows by one with each, and codes get one more
# bit one step before they need it (TIFF 6.0, section 13). 4096 entries are the largest table.
_WIDTHS = np.repeat([9, 10, 11, 12], [254, 512, 1024, 4096 - 254 - 512 - 1024])
_STARTS = np.concatenate([[0], np.cumsum(_WIDTHS)[:-1]])
_BYTES = [bytes([value]) for value in range(256)] + [b"", b""]


def unpack(packed: memoryview, compression: int, size: int) -> bytes:
    """Return the `size` bytes of a strip; raises FrameError where there are fewer."""
    content = PACKED[compression](packed, size)
    if len(content) < size:
        raise damaged(f"a strip of {len(content)} bytes, expected {size}")
    return content[:size]


def sum_of_differences(samples: Tensor) -> Tensor:
    """Return (rows, width, channels) of which all but the first pixel were kept as differences."""
    return np.cumsum(samples, axis=1, dtype=samples.dtype)  # they wrap as the writer's did


def damaged(what: str) -> FrameError:
    """Return the error of a TIFF whose structure is whole and whose content is not."""
    return FrameError(f"a damaged tiff: {what}", "damaged tiff")


def _stored(packed: memoryview, _: int) -> bytes:
    return bytes(packed)


def _lzw(packed: memoryview, size: int) -> bytes:
    data = np.frombuffer(packed, np.uint8).astype(np.uint32)
    data = np.concatenate([data, np.zeros(3, np.uint32)])
    windows = data[:-2] << 16 | data[1:-1] << 8 | data[2:]  # 24 bits from every byte on
    parts: list[bytes] = []
    at, unpacked, bits = 0, 0, 8 * len(packed)
    while at < bits and unpacked < size:
        positions = at + _STARTS
        count = int(np.searchsorted(positions + _WIDTHS, bits, "right"))
        positions, widths = positions[:count], _WIDTHS[:count]
        codes = windows[positions >> 3] >> (24 - (positions & 7) - widths) & (1 << widths) - 1
        stops = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        stop = int(stops[0]) if len(stops) else count
        block = _strings(codes[:stop].tolist())
        parts.append(block)
        unpacked += len(block)
        if stop == count or codes[stop] == _END:
            break
        at = int(positions[stop] + widths[stop])
    return b"".join(parts)


def _strings(codes: list[int]) -> bytes:
    """Return what the codes between two _CLEAR stand for."""
    if not codes:
        return b""
    if codes[0] >= len(_BYTES):
        raise damaged(f"LZW begins with the code {codes[0]}")
    table = list(_BYTES)
    last = table[codes[0]]
    found = [last]
    for code in codes[1:]:
        if code > len(table):
            raise damaged(f"LZW code {code} of {len(table)}")
        entry = table[code] if code < len(table) else last + last[:1]
        table.append(last + entry[:1])
        found.append(entry)
        last = entry
    return b"".join(found)


def _deflate(packed: memoryview, size: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, size + 1)
    except zlib.error as error:
        raise damaged(str(error)) from None
    if not unpacker.eof and len(content) <= size:
        raise damaged("deflate without an end")
    return content


def _pack_bits(packed: memoryview, size: int) -> bytes:
    content, at = bytearray(), 0
    while at < len(packed) and len(content) < size:
        count, at = packed[at], at + 1
        if count < 128:
            content += packed[at : at + count + 1]
            at += count + 1
        elif count > 128:
            content += bytes(packed[at : at + 1]) * (257 - count)
            at += 1
    return bytes(content)


PACKED: dict[int, Callable[[memoryview, int], bytes]] = {
    1: _stored,
    5: _lzw,
    8: _deflate,
    32946: _deflate,
    32773: _pack_bits,
}
