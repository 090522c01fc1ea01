"""The pages of an SQLite file, read without SQLite: never written to, never run, never trusted.

SQLite stops at the first damaged page, cannot reach what hangs below one, and wants to write beside
a file that was cut off in the middle of a transaction. Recordings end like that. This reads the
file format itself (https://www.sqlite.org/fileformat2.html), including a `-wal` that was left over.
"""

import os
import struct
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.data.storage.sqlite.wal import WriteAheadLog
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

_MAGIC = b"SQLite format 3\0"
_ENCODINGS = {1: "utf-8", 2: "utf-16-le", 3: "utf-16-be"}
_HEADER = 100
_USUAL_PAGE_SIZE = 4096
_SMALLEST_PAGE, _LARGEST_PAGE = 512, 65536
_SMALLEST_USABLE = 480
_BYTES_AT_ONCE = 2**21
_NONE = np.empty(0, np.int64)


class Pages:
    """An open SQLite file as its last complete transaction left it.

    Safe to read from several threads. Page numbers count from 1.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; raises FrameError where there is none, or not one page of it."""
        self.name = path.name
        self.damage = DamageLog()  # of the log beside the file
        self._buffers = threading.local()
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            size = os.fstat(self._fd).st_size
            header = os.pread(self._fd, _HEADER, 0)
        except OSError as error:
            self._close_file()
            raise FrameError(f"{self.name}: {error.strerror}; is it a file you may read?") from None
        self._wal = WriteAheadLog(path, self.damage)
        if 1 in self._wal.offsets:
            header = self._wal.page(1)[:_HEADER]
        self._read_header(header)
        if self._wal.offsets and self._wal.page_size != self.page_size:
            self.damage.add("damaged file", f"{self.name}-wal is not of this file")
            self._wal.offsets.clear()
        self.in_file = size // self.page_size
        # Whatever a log appends, it has itself: a larger page number cannot be right.
        most = self.in_file + len(self._wal.offsets) + 1
        self.count = min(max([self.in_file, *self._wal.offsets]), most)
        if not self.count:
            self.close()
            raise FrameError(
                f"{self.name}: has {size} bytes, less than one page; the recording never began",
                "cut file",
            )

    def close(self) -> None:
        """Close the file; whatever is read afterwards raises FrameError."""
        self._wal.close()
        self._close_file()

    def page(self, number: int) -> bytes:
        """Return one page; raises FrameError ("cut file" for one behind the end)."""
        if number in self._wal.offsets and number <= self.count:
            return self._wal.page(number)
        if not 1 <= number <= self.in_file:
            raise FrameError(f"{self.name}: page {number} is behind its end", "cut file")
        try:
            data = os.pread(self._fd, self.page_size, (number - 1) * self.page_size)
        except OSError as error:
            raise FrameError(f"{self.position(number)}: {error.strerror}") from None
        if len(data) != self.page_size:
            raise FrameError(f"{self.position(number)}: it became shorter", "cut file")
        return data

    def position(self, number: int) -> str:
        """Return where a page is, for people."""
        return f"{self.name} at byte {(number - 1) * self.page_size}"

    def chain(self, first: int, out: memoryview, starts: NDArray[np.int64] = _NONE) -> None:
        """Fill `out` from the linked overflow pages that begin at `first`.

        Args:
            first: page number.
            out: what to fill.
            starts: pages where chains begin, in order: none of them may be linked to.

        Raises:
            FrameError: the chain leaves the file, is too short or does not end where it has to:
                then one of its links is wrong and it may hold a part of another message.
        """
        content = self.usable - 4
        guess = -(-len(out) // content)  # pages; most chains lie in one piece
        if guess > self.count:
            raise FrameError(
                f"{self.position(first)}: claims more pages than there are", "cut file"
            )
        number, at = first, 0
        while at < len(out):
            if number == 0:
                raise FrameError(f"{self.position(first)}: the message ends early", "damaged file")
            begin = number
            if self._wal.offsets:
                read, number = self._one(begin, out[at:])
            else:
                read, number = self._run(begin, out[at:], guess)
            guess = max(1, 2 * read)
            at += read * content
            if number not in (0, begin + read) and self._is_of_another(number, starts):
                raise FrameError(
                    f"{self.position(first)}: leads into another message", "damaged file"
                )
        if number:
            raise FrameError(f"{self.position(first)}: the message does not end", "damaged file")

    def _is_of_another(self, number: int, starts: NDArray[np.int64]) -> bool:
        """Return whether a page that does not follow the one before it belongs to another chain.

        One changed bit in a link would otherwise put the end of one picture under another.
        """
        at = int(np.searchsorted(starts, number))
        if at < len(starts) and starts[at] == number:
            return True
        if self._has_free_pages or not 1 < number <= self.count:
            return False  # a page that is not in use may still have its old link
        return int.from_bytes(self.page(number - 1)[:4], "big") == number

    def _one(self, number: int, out: memoryview) -> tuple[int, int]:
        page = self.page(number)
        piece = page[4 : min(self.usable, 4 + len(out))]
        out[: len(piece)] = piece
        return 1, int.from_bytes(page[:4], "big")

    def _run(self, number: int, out: memoryview, count: int) -> tuple[int, int]:
        """Fill `out` from up to `count` neighboring pages; return (linked pages, the next one)."""
        content = self.usable - 4
        pages = self._buffer()  # (pages, page_size)
        pages = pages[: min(count, len(pages), -(-len(out) // content), self.in_file - number + 1)]
        if not len(pages) or number < 1:
            raise FrameError(f"{self.name}: page {number} is behind its end", "cut file")
        try:
            size = os.preadv(self._fd, [pages.data], (number - 1) * self.page_size)
        except OSError as error:
            raise FrameError(f"{self.position(number)}: {error.strerror}") from None
        if size != pages.nbytes:
            raise FrameError(f"{self.position(number)}: it became shorter", "cut file")
        following = pages[:, :4].copy().view(">u4")[:, 0]
        jumps = np.flatnonzero(following != np.arange(number + 1, number + 1 + len(pages)))
        linked = int(jumps[0]) + 1 if len(jumps) else len(pages)
        whole = min(linked, len(out) // content)
        rows = np.frombuffer(out, np.uint8, whole * content).reshape(whole, content)
        rows[:] = pages[:whole, 4 : self.usable]
        if whole < linked:
            rest = out[whole * content :]
            rest[:] = pages[whole, 4 : 4 + len(rest)].data
        return linked, int(following[linked - 1])

    def _buffer(self) -> NDArray[np.uint8]:
        """Return this thread's own buffer: fresh memory for every frame costs more than reading."""
        buffer: NDArray[np.uint8] | None = getattr(self._buffers, "pages", None)
        if buffer is None:
            buffer = np.empty((_BYTES_AT_ONCE // self.page_size, self.page_size), np.uint8)
            self._buffers.pages = buffer
        return buffer

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _read_header(self, header: bytes) -> None:
        """Take page size, encoding; the usual ones where the header is damaged."""
        self._has_free_pages = header[36:40] != bytes(4)
        self.has_header = header.startswith(_MAGIC) and len(header) == _HEADER
        size, reserved = _USUAL_PAGE_SIZE, 0
        encoding = 1
        if len(header) == _HEADER:
            claimed = int(struct.unpack_from(">H", header, 16)[0])
            claimed = _LARGEST_PAGE if claimed == 1 else claimed
            if claimed >= _SMALLEST_PAGE and claimed & (claimed - 1) == 0:
                size = claimed
            reserved = header[20] if size - header[20] >= _SMALLEST_USABLE else 0
            encoding = int(struct.unpack_from(">I", header, 56)[0])
        self.page_size = size
        self.usable = size - reserved
        self.encoding = _ENCODINGS.get(encoding, "utf-8")
