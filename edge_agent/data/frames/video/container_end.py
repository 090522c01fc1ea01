"""Tell whether a video file was cut: its outermost part says that it is longer than the file.

FFmpeg's readers stop at the end of a cut file as at any end.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_MAX_PARTS = 1 << 20  # a fragmented .mp4 has two a second


def is_cut(path: Path) -> bool:
    """Return whether the last part of a .mp4, .mov, .avi or .mkv lies beyond the file's end.

    False where the file does not say how long it is, as of a recorder that was never closed.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(12)
        step = next((step for fits, step in _KINDS if fits(head)), None)
        at = 0
        for _ in range(_MAX_PARTS if step else 0):
            if at >= size:
                break
            stream.seek(at)
            assert step is not None
            length = step(stream)
            if length is None:
                return False
            at += length
    return at > size


def _riff(stream: BinaryIO) -> int | None:
    head = stream.read(8)
    if len(head) < 8 or head[:4] != b"RIFF":  # padding
        return None
    (length,) = struct.unpack_from("<I", head, 4)
    return int(8 + length + length % 2) if length else None


def _box(stream: BinaryIO) -> int | None:
    head = stream.read(16)
    if len(head) < 8:
        return 8  # a header that was cut
    (length,) = struct.unpack_from(">I", head)
    if length == 1 and len(head) == 16:
        (length,) = struct.unpack_from(">Q", head, 8)
    return int(length) if length >= 8 else None  # 0: up to the end


def _element(stream: BinaryIO) -> int | None:
    head = stream.read(12)
    if len(head) < 5 or int.from_bytes(head[:4], "big") not in (_EBML, _SEGMENT):
        return None
    width = 9 - head[4].bit_length()
    if width > 8 or len(head) < 4 + width:
        return None
    length = int.from_bytes(head[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
    return None if length == (1 << 7 * width) - 1 else 4 + width + length


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO], int | None]], ...] = (
    (lambda head: head[:4] == b"RIFF", _riff),
    (lambda head: head[:4] == b"\x1a\x45\xdf\xa3", _element),
    (lambda head: head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"), _box),
)
