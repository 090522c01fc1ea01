"""The file history.jsonl, one JSON object per closed round: read as little of it as is needed.

After years it has hundreds of megabytes. A line begins with its run, round and version, so a reader
finds the lines that it wants without parsing the records of robots in the others.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cloud_server.state.round_record import RoundRecord, parse_record
from fleet_model.durable import appending

BLOCK_BYTES = 1 << 16
_KEY = re.compile(rb'\{"run": ("(?:[^"\\]|\\.)*"), "round": (\d+), "version": (\d+), ')


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a reader has read, to be continued by another process."""

    offset: int = 0  # of the first byte that was not read
    last_bytes: int = 0  # length of the line before it
    last_sha256: str = ""  # of that line: another file has another one there


START = Position()


@dataclass(frozen=True, slots=True)
class Line:
    """One whole line of the file, not yet parsed."""

    content: bytes
    offset: int  # of its first byte

    def key(self) -> tuple[str, int, int] | None:
        """Return run, round, version; None for a line that holds no round."""
        found = _KEY.match(self.content)
        if found is not None:
            return json.loads(found[1]), int(found[2]), int(found[3])
        record = self.record()
        return None if record is None else (record.run, record.round, record.version)

    def record(self) -> RoundRecord | None:
        """Return the round; None if the line is torn: its checkpoint holds the record, too."""
        try:
            return parse_record(self.content)
        except ValueError:
            return None

    def position(self) -> Position:
        """Return where a reader is that has read this line."""
        digest = hashlib.sha256(self.content).hexdigest()
        size = len(self.content)
        return Position(offset=self.offset + size, last_bytes=size, last_sha256=digest)


class Follower:
    """Read the rounds that were added to a history file since the last look.

    A line that a power cut has torn is left out; a file that was replaced is read from its start.
    """

    def __init__(self, path: Path, position: Position = START) -> None:
        """Continue at `position`, if the file still has the line there that was read last."""
        self._path = path
        self._inode = 0
        self.position = position

    def is_replaced(self) -> bool:
        """Return whether what was read before is no longer in the file; it is read again then."""
        before = self.position
        try:
            with self._path.open("rb") as stream:
                self._require_same_file(stream)
        except FileNotFoundError:
            self.position = START
        return self.position != before

    def new(self) -> Iterator[RoundRecord]:
        """Yield the records of whole lines."""
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            self._require_same_file(stream)
            for line in _forward(stream, self.position.offset):
                self.position = line.position()
                if (record := line.record()) is not None:
                    yield record

    def _require_same_file(self, stream: BinaryIO) -> None:
        """Begin again with a file that is another one than before."""
        inode, at = os.fstat(stream.fileno()).st_ino, self.position
        if self._inode != inode or os.fstat(stream.fileno()).st_size < at.offset:
            stream.seek(at.offset - at.last_bytes)
            last = stream.read(at.last_bytes)
            if at.offset and hashlib.sha256(last).hexdigest() != at.last_sha256:
                self.position = START
        self._inode = inode


def append_line(path: Path, line: bytes) -> None:
    """Add a line unless it is the last one; what a power cut has torn before stays by itself."""
    with appending(path) as stream:
        stream.seek(max(stream.tell() - len(line), 0))
        before = stream.read()
        if before and not before.endswith(b"\n"):
            stream.write(b"\n")  # the end of a torn line, or all that the last try lacked
        if before != line:
            stream.write(line + b"\n")


def all_lines(path: Path) -> Iterator[Line]:
    """Yield the whole lines, oldest first."""
    if path.exists():
        with path.open("rb") as stream:
            yield from _forward(stream, 0)


def newest_lines(path: Path) -> Iterator[Line]:
    """Yield the whole lines, newest first; only the blocks that hold them are read."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        begin, pieces = stream.seek(0, os.SEEK_END), []  # pieces of a line that begins before
        whole = False  # what follows the last newline is being written, or was torn
        while begin:
            size = min(begin, BLOCK_BYTES)
            begin -= size
            stream.seek(begin)
            *lines, last = stream.read(size).split(b"\n")
            pieces.append(last)
            while lines:
                content = b"".join(reversed(pieces))
                offset = begin + sum(len(line) + 1 for line in lines)
                if whole:
                    yield Line(content + b"\n", offset)
                pieces, whole = [lines.pop()], True
        if whole:
            yield Line(b"".join(reversed(pieces)) + b"\n", 0)


def read_line(path: Path, offset: int) -> Line:
    """Return the line that begins at `offset`."""
    with path.open("rb") as stream:
        stream.seek(offset)
        return Line(stream.readline(), offset)


def _forward(stream: BinaryIO, offset: int) -> Iterator[Line]:
    stream.seek(offset)
    for content in stream:
        if not content.endswith(b"\n"):
            return  # it is being written
        yield Line(content, offset)
        offset += len(content)
