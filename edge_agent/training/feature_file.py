"""Rows of features in one file that grows at its end: one new row costs one write.

    magic, sha256 of the owner, then for each row
      magic, bytes of the description, bytes of the tensors, crc32 of head and description
      description: {"key": ..., "tensors": [[name, dtype, shape], ...], "crc32": of the tensors}
      the tensors, one behind the other

A later row of a key replaces an earlier one. Rows can be computed again, so appending does not
fsync: what a power cut has torn does not fit its checksum, and the file is used up to there. The
head is part of each checksum, since a power cut may leave a new head before rows of another owner.
"""

import json
import math
import os
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fleet_model.durable import writing
from fleet_model.errors import TrainingError
from fleet_model.types import Tensor, Tensors

_MAGIC = b"FLFEAT1\n"
_HEAD = struct.Struct("<4sIQI")
_ROW = b"row\n"
_LONGEST_DESCRIPTION = 1 << 20


class _Position(NamedTuple):
    at: int
    size: int  # of head, description and tensors


class FeatureFile:
    """The rows of one owner; not for two processes at a time. Methods raise OSError."""

    def __init__(self, path: Path, owner: str) -> None:
        """Look for rows without reading their tensors.

        Args:
            path: the file; it is made with the first row.
            owner: what the rows belong to. A file of another one counts as empty.
        """
        self.path = path
        self._head = _MAGIC + sha256(owner.encode()).digest()
        self._seed = zlib.crc32(self._head)
        self._positions: dict[str, _Position] = {}
        self.size_bytes = len(self._head)
        self._stream: BinaryIO | None = None
        self._ends_here = False  # whether the file holds our head and rows, and nothing behind them
        if path.exists():
            self._stream = path.open("r+b", buffering=0)
            self._find_rows(self._stream)

    def __contains__(self, key: str) -> bool:
        return key in self._positions

    def keys(self) -> Collection[str]:
        """Return the keys of all rows."""
        return self._positions.keys()

    def read(self, key: str) -> Tensors | None:
        """Return a row; None if there is none, or none that fits its checksum."""
        position = self._positions.get(key)
        if position is None:
            return None
        content = self._pread(position.at, position.size)
        row = _parse(content, key, self._seed)
        if row is None:
            del self._positions[key]  # it is computed again, and appended again
        return row

    def left(self, key: str) -> Tensors:
        """Return a row that stays in the file: each look at a tensor reads it, unchecked.

        Whoever has it keeps the file open. A look raises TrainingError if it cannot be read.
        """
        position = self._positions[key]
        _, described, _, _ = _HEAD.unpack(self._pread(position.at, _HEAD.size))
        description = json.loads(self._pread(position.at + _HEAD.size, described))
        return _LeftRow(self, key, _HEAD.size + described, description["tensors"])

    def part(self, key: str, at: int, size: int) -> bytes:
        """Return bytes of a row, `at` from its beginning; raises TrainingError."""
        try:
            content = self._pread(self._positions[key].at + at, size)
        except OSError as error:
            raise _unreadable(self.path, error.strerror) from None
        if len(content) != size:
            raise _unreadable(self.path, "it has become shorter")
        return content

    def append(self, key: str, row: Tensors, limit_bytes: int) -> bool:
        """Add a row unless the file would be larger than `limit_bytes`; return whether it was."""
        content = _packed(key, row, self._seed)
        if content is None or self.size_bytes + len(content) > limit_bytes:
            return False
        stream = self._opened()
        try:
            stream.seek(self.size_bytes)
            _write_all(stream, content)
        except OSError:  # a full disk: what was written of the row is cut off again
            os.ftruncate(stream.fileno(), self.size_bytes)
            raise
        self._positions[key] = _Position(self.size_bytes, len(content))
        self.size_bytes += len(content)
        return True

    def dead_bytes(self, wanted: Collection[str]) -> int:
        """Return how much of the file is no row of a wanted key."""
        live = sum(p.size for key, p in self._positions.items() if key in wanted)
        return self.size_bytes - len(self._head) - live

    def compact(self, wanted: Collection[str]) -> None:
        """Keep only the rows of wanted keys, in a new file that takes this one's place."""
        kept = {key: p for key, p in self._positions.items() if key in wanted}
        with writing(self.path) as stream:
            stream.write(self._head)
            for position in kept.values():
                stream.write(self._pread(position.at, position.size))
        self.close()
        self._positions, at = {}, len(self._head)
        for key, position in kept.items():
            self._positions[key] = _Position(at, position.size)
            at += position.size
        self.size_bytes = at
        self._stream, self._ends_here = self.path.open("r+b", buffering=0), True

    def close(self) -> None:
        """Let go of the file."""
        if self._stream:
            self._stream.close()
        self._stream = None

    def _opened(self) -> BinaryIO:
        if self._stream is None:
            self._stream = self.path.open("w+b", buffering=0)
        if not self._ends_here:
            # It is new, or of another owner, or a power cut has torn its end.
            has_rows = self.size_bytes > len(self._head)
            os.ftruncate(self._stream.fileno(), self.size_bytes if has_rows else 0)
            self._stream.seek(0)
            _write_all(self._stream, self._head)
            self._ends_here = True
        return self._stream

    def _find_rows(self, stream: BinaryIO) -> None:
        end = stream.seek(0, os.SEEK_END)
        if self._pread(0, len(self._head)) != self._head:
            return
        at = len(self._head)
        for key, size in self._descriptions(at, end):
            self._positions[key] = _Position(at, size)
            at += size
        self.size_bytes = at
        self._ends_here = at == end

    def _descriptions(self, at: int, end: int) -> Iterator[tuple[str, int]]:
        """Yield (key, bytes of the row) up to the first row that is torn."""
        while at + _HEAD.size <= end:
            magic, described, tensors, checksum = _HEAD.unpack(self._pread(at, _HEAD.size))
            size = _HEAD.size + described + tensors
            if magic != _ROW or described > _LONGEST_DESCRIPTION or at + size > end:
                return
            text = self._pread(at + _HEAD.size, described)
            if zlib.crc32(text, self._seed) != checksum:
                return
            yield json.loads(text)["key"], size
            at += size

    def _pread(self, at: int, size: int) -> bytes:
        assert self._stream is not None
        return os.pread(self._stream.fileno(), size, at)


class _LeftRow(Mapping[str, Tensor]):
    """See `FeatureFile.left`."""

    def __init__(self, file: FeatureFile, key: str, at: int, tensors: list[Any]) -> None:
        self._file, self._key = file, key
        self._parts: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]] = {}
        for name, kind, shape in tensors:
            self._parts[name] = at, np.dtype(kind), tuple(shape)
            at += math.prod(shape) * np.dtype(kind).itemsize

    def __getitem__(self, name: str) -> Tensor:
        at, dtype, shape = self._parts[name]
        content = self._file.part(self._key, at, math.prod(shape) * dtype.itemsize)
        return np.frombuffer(content, dtype).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _unreadable(path: Path, why: str | None) -> TrainingError:
    return TrainingError(
        f"{path.name}, the features of this robot's frames, cannot be read: {why}; what is missing "
        "is computed again in the next round"
    )


def _packed(key: str, row: Tensors, seed: int) -> bytes | None:
    """Return the bytes of a row; None for tensors of a dtype that cannot be named.

    Args:
        key: of the row.
        row: its tensors.
        seed: crc32 of the head.
    """
    if any(t.dtype.hasobject or np.dtype(t.dtype.str) != t.dtype for t in row.values()):
        return None
    contents = [np.asarray(tensor, order="C").tobytes() for tensor in row.values()]
    checksum = 0
    for content in contents:
        checksum = zlib.crc32(content, checksum)
    described: list[Any] = [[name, t.dtype.str, t.shape] for name, t in row.items()]
    text = json.dumps({"key": key, "tensors": described, "crc32": checksum}).encode()
    size = sum(map(len, contents))
    if len(text) > _LONGEST_DESCRIPTION:
        return None
    return b"".join([_HEAD.pack(_ROW, len(text), size, zlib.crc32(text, seed)), text, *contents])


def _parse(content: bytes, key: str, seed: int) -> Tensors | None:
    """Return the tensors of a row; None if its bytes are not what was written."""
    if len(content) < _HEAD.size:
        return None
    _, described, size, checksum = _HEAD.unpack_from(content)
    text = content[_HEAD.size : _HEAD.size + described]
    if zlib.crc32(text, seed) != checksum:
        return None
    description, begin = json.loads(text), _HEAD.size + described
    tensors = memoryview(content)[begin:]
    if description["key"] != key or len(tensors) != size:
        return None
    if zlib.crc32(tensors) != description["crc32"]:
        return None
    row, at = {}, 0
    for name, kind, shape in description["tensors"]:
        count = math.prod(shape)
        # A copy: the bytes around it are not kept in memory, and it may be written to.
        row[name] = np.frombuffer(tensors, kind, count, at).reshape(shape).copy()
        at += row[name].nbytes
    return row


def _write_all(stream: BinaryIO, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[stream.write(view) :]
