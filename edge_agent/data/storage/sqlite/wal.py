"""The write-ahead log that an SQLite writer leaves beside its file when it is killed.

Everything since the last checkpoint is only in there: often the last minutes of a recording.
https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

import functools
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

_HEADER, _FRAME_HEADER = 32, 24
_MAGIC = 0x377F0682  # + 1 where checksums are of big-endian words
_PAGE_SIZES = tuple(2**n for n in range(9, 17))

_Sums = tuple[int, int]


class WriteAheadLog:
    """The pages that the `-wal` beside an SQLite file replaces; none where there is no such file.

    Takes what SQLite would: frames with the salt and the running checksum of the log, up to the
    last one that ends a transaction. A transaction that was cut off is added to `damage`.
    """

    def __init__(self, path: Path, damage: DamageLog) -> None:
        """Open and check the log of the SQLite file at `path`; never raises for what is in it."""
        self.offsets: dict[int, int] = {}  # page number -> where its newest committed state is
        self.page_size = 0
        self._name = f"{path.name}-wal"
        self._fd = -1
        try:
            self._fd = os.open(path.with_name(self._name), os.O_RDONLY | os.O_CLOEXEC)
            self._read_frames(damage)
        except FileNotFoundError:
            pass
        except OSError as error:
            damage.add("unreadable", f"{self._name}: {error.strerror}")

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def page(self, number: int) -> bytes:
        """Return one of the pages in `offsets`; raises FrameError."""
        try:
            data = os.pread(self._fd, self.page_size, self.offsets[number])
        except OSError as error:
            raise FrameError(f"{self._name}: {error.strerror}") from None
        if len(data) != self.page_size:
            raise FrameError(f"{self._name}: it became shorter", "cut file")
        return data

    def _read_frames(self, damage: DamageLog) -> None:
        header = _header(os.pread(self._fd, _HEADER, 0))
        if header is None:
            if os.fstat(self._fd).st_size:
                damage.add("damaged file", f"{self._name} at byte 0")
            return
        self.page_size = header.page_size
        uncommitted: dict[int, int] = {}
        sums, at = header.sums, _HEADER
        while frame := os.pread(self._fd, _FRAME_HEADER + header.page_size, at):
            if frame[8:16] != header.salt:
                break  # left behind by an earlier, finished use of this log
            whole = len(frame) == _FRAME_HEADER + header.page_size
            sums = _checksum(frame[:8] + frame[_FRAME_HEADER:], header.order, sums)
            if not whole or struct.unpack_from(">II", frame, 16) != sums:
                damage.add("cut file", f"{self._name} at byte {at}")
                return
            number, pages_after_commit = struct.unpack_from(">II", frame)
            uncommitted[number] = at + _FRAME_HEADER
            if pages_after_commit:
                self.offsets |= uncommitted
                uncommitted = {}
            at += len(frame)
        if uncommitted:
            damage.add("cut file", f"{self._name} at byte {at}")


class _Header(NamedTuple):
    page_size: int
    salt: bytes
    order: str  # NumPy's, of the words that checksums are of
    sums: _Sums


def _header(data: bytes) -> _Header | None:
    if len(data) < _HEADER:
        return None
    magic, _, page_size = struct.unpack_from(">III", data)
    order = ">u4" if magic & 1 else "<u4"
    sums = _checksum(data[:24], order, (0, 0))
    if (
        magic & ~1 != _MAGIC
        or page_size not in _PAGE_SIZES
        or sums != struct.unpack_from(">II", data, 24)
    ):
        return None
    return _Header(page_size, data[16:24], order, sums)


def _checksum(data: bytes, order: str, sums: _Sums) -> _Sums:
    """Go on with the log's checksum: s0 += x[2i] + s1; s1 += x[2i+1] + s0, modulo 2**32.

    The recurrence is linear, so all words are weighed at once. Odd bytes at the end are left out.
    """
    words = np.frombuffer(data, order, len(data) // 8 * 2).astype(np.uint32)
    weights, start = _weights(len(words))
    totals = (weights * words).sum(axis=1, dtype=np.uint32)
    totals += (start * np.array(sums, np.uint32)).sum(axis=1, dtype=np.uint32)
    return int(totals[0]), int(totals[1])


@functools.lru_cache(maxsize=8)
def _weights(count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return how much each word (2, count) and each old sum (2, 2) adds to the two new sums."""
    weights = np.zeros((2, count), np.uint32)
    a, b, c, d = 1, 0, 0, 1  # what the sums after word i + 1 still add: a*s0 + b*s1, c*s0 + d*s1
    for i in range(count - 2, -1, -2):
        weights[:, i + 1] = b, d  # added to s1
        weights[:, i] = (a + b) % 2**32, (c + d) % 2**32  # added to s0, and with it to s1
        a, b = (a + b) % 2**32, (a + 2 * b) % 2**32
        c, d = (c + d) % 2**32, (c + 2 * d) % 2**32
    return weights, np.array([[a, b], [c, d]], np.uint32)
