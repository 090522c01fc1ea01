"""Which way up a picture is, by the EXIF tag that cameras write, and how it is turned upright."""

import struct

import numpy as np

from fleet_model.types import Tensor

EXIF = b"Exif\0\0"  # what JPEG has before the tags, and some writers of WebP, too
_TAG, _SHORT = 0x0112, 3
_ENTRY = 12  # bytes
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
# EXIF 2.32, 4.6.4 A: whether rows and columns are exchanged, and then the new ones are reversed.
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def read_orientation(exif: bytes | memoryview) -> int:
    """Return 1 (upright) to 8 from EXIF tags; 1 where they are damaged or do not say."""
    tags = memoryview(exif)[len(EXIF) if bytes(exif[:6]) == EXIF else 0 :]
    order = _ORDERS.get(bytes(tags[:4]))
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", tags, 4)
        (count,) = struct.unpack_from(f"{order}H", tags, at)
        for entry in range(at + 2, at + 2 + count * _ENTRY, _ENTRY):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tags, entry)
            if (tag, kind) == (_TAG, _SHORT):
                return value if value in _TURNS else 1
    except struct.error:
        pass
    return 1


def is_on_its_side(orientation: int) -> bool:
    """Return whether width and height of the upright picture are the stored ones exchanged."""
    return orientation in _TURNS and _TURNS[orientation][0]


def turned_upright(pixels: Tensor, orientation: int) -> Tensor:
    """Return (height, width[, channels]) as the photographer saw it; the same array for 1."""
    if orientation not in _TURNS:
        return pixels
    is_exchanged, reversed_rows, reversed_columns = _TURNS[orientation]
    pixels = pixels.swapaxes(0, 1) if is_exchanged else pixels
    rows, columns = (slice(None, None, -1 if r else 1) for r in (reversed_rows, reversed_columns))
    return np.ascontiguousarray(pixels[rows, columns])
