"""The replies of one round in one append-only file: kept as they arrive, read back in any order.

A record is a head (two lengths, a digest), a JSON header and the tensors as safetensors. After a
power cut the file ends with whole records: what was not yet synced is cut off at opening, and its
robots are asked again. A piece of one tensor is read without the rest of its record.
"""

import hashlib
import logging
import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, BinaryIO

import numpy as np
from pydantic import BeforeValidator, TypeAdapter

from fleet_model.durable import appending
from fleet_model.errors import StorageError
from fleet_model.protocol.outcome import Outcome, parse_outcome
from fleet_model.types import FLOAT32, TRAIN, Metrics, Tensor, Update
from fleet_model.weights import (
    TensorEntry,
    join_groups,
    joined_name,
    parse_table,
    safetensors_pieces,
    split_groups,
    view_safetensors,
)

log = logging.getLogger(__name__)

_HEAD = struct.Struct("<IQ32s")  # bytes of the header, bytes of the tensors, sha256 of both
_CHUNK = 1 << 20
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, struct.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A reply that was taken, without its tensors."""

    ticket: str
    robot: str
    site: str
    round: int  # in which the robot was asked
    verdict: Annotated[Outcome, BeforeValidator(parse_outcome)]  # ACCEPTED until judged
    kind: str = TRAIN
    groups: tuple[str, ...] = ()  # of tensors beside the weights
    base_version: int = 0
    num_examples: int = 0
    num_steps: int = 0
    update_bytes: int = 0  # of its tensors, as they travelled
    codec: str = FLOAT32  # in which they travelled: here they are as they were meant
    metrics: Metrics = field(default_factory=dict)
    norm: float = 0.0
    label_counts: Mapping[str, int] = field(default_factory=dict)  # see RobotRecord
    speaks_for: int = 1  # see RobotRecord


_KEPT = TypeAdapter(Kept)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor is among the tensors of its record."""

    index: int  # of its checksum
    entry: TensorEntry


@dataclass(frozen=True, eq=False, slots=True)
class _Record:
    """Where a record begins, and what its tensors must be: a few bytes per tensor in memory."""

    begin: int
    checksums: Tensor  # (tensors,) uint32: CRC-32 of each, taken when the digest of all was checked
    checked: bytearray  # 1: this process has compared the tensor with its checksum


class ReplySpool:
    """One file; one process writes it. OSError where the disk fails."""

    def __init__(self, file: Path) -> None:
        """Take up what is there."""
        self._file = file
        self._kept: list[Kept] = []
        self._records: dict[str, _Record] = {}  # by ticket
        self._end = 0  # of the last whole record
        if file.exists():
            self._take_up()

    @property
    def kept(self) -> tuple[Kept, ...]:
        """Return the replies in the order they were kept."""
        return tuple(self._kept)

    def keep(self, replies: Sequence[tuple[Kept, Update | None]]) -> None:
        """Append with one fsync for all; after an error the file is as it was before."""
        records = []
        with appending(self._file) as stream:
            for kept, update in replies:
                records.append((kept, _append(stream, kept, update)))
            end = stream.tell()
        self._end = end
        for kept, record in records:
            self._kept.append(kept)
            self._records[kept.ticket] = record

    def read(self, kept: Kept) -> Update:
        """Return one update, bit for bit; raises StorageError if it is not what was written."""
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._records[kept.ticket].begin)
                header_bytes, tensor_bytes, digest = _HEAD.unpack(stream.read(_HEAD.size))
                found = hashlib.sha256(stream.read(header_bytes))
                tensors = stream.read(tensor_bytes)
            found.update(tensors)
            if found.digest() != digest:
                raise self._damaged(kept)
            weights, groups = split_groups(view_safetensors(tensors), kept.groups)
        except _UNREADABLE as error:
            raise self._damaged(kept) from error
        return Update(
            kind=kept.kind,
            groups=groups,
            robot=kept.robot,
            base_version=kept.base_version,
            weights=weights,
            num_examples=kept.num_examples,
            num_steps=kept.num_steps,
            metrics=kept.metrics,
        )

    def numbers(self, kept: Kept, name: str, start: int, stop: int) -> Tensor:
        """Return elements start to stop of one tensor, in C order: shape (n,), read-only.

        The first call for a tensor compares all of it with its checksum, 1 MB at a time; later ones
        read what is asked for. Raises StorageError if the tensor is not what was written.
        """
        record = self._records[kept.ticket]
        try:
            with self._file.open("rb") as stream:
                begin, place = _find(stream, record.begin, joined_name(name, kept.groups))
                if not record.checked[place.index]:
                    if _checksum(stream, place.entry.bytes) != record.checksums[place.index]:
                        raise self._damaged(kept)
                    record.checked[place.index] = 1
                dtype = place.entry.numpy_dtype
                stream.seek(begin + dtype.itemsize * start)
                content = stream.read(dtype.itemsize * (stop - start))
            return np.frombuffer(content, dtype, stop - start)
        except _UNREADABLE as error:
            raise self._damaged(kept) from error

    def _damaged(self, kept: Kept) -> StorageError:
        return StorageError(
            f"{self._file.name}: the reply of robot {kept.robot} is damaged on disk; check the "
            "disk, then `cloud-server runs resume DIR`: the robot is asked again"
        )

    def _take_up(self) -> None:
        """Find the whole records, and cut off what follows them."""
        with self._file.open("rb") as stream:
            while (found := _scan(stream)) is not None:
                kept, record = found
                self._kept.append(kept)
                self._records[kept.ticket] = record
                self._end = stream.tell()
        if torn := self._file.stat().st_size - self._end:
            log.warning("%s: %d bytes of an unfinished reply are dropped", self._file.name, torn)
            os.truncate(self._file, self._end)


def _append(stream: BinaryIO, kept: Kept, update: Update | None) -> _Record:
    header, begin = _KEPT.dump_json(kept), stream.tell()
    pieces = (
        [] if update is None else safetensors_pieces(join_groups(update.weights, update.groups))
    )
    digest = hashlib.sha256(header)
    for piece in pieces:
        digest.update(piece)
    size = sum(len(piece) for piece in pieces)
    stream.write(_HEAD.pack(len(header), size, digest.digest()))
    stream.write(header)
    stream.writelines(pieces)
    return _record(begin, [zlib.crc32(piece) for piece in pieces[1:]])


def _record(begin: int, checksums: Sequence[int]) -> _Record:
    return _Record(begin, np.array(checksums, np.uint32), bytearray(len(checksums)))


@lru_cache(maxsize=8)  # all updates of a round have the same table
def _places(table: bytes, size: int) -> Mapping[str, _Place]:
    """Return where each tensor is; raises ValueError if this is no table of `size` bytes."""
    entries = parse_table(table, size).items()
    return {name: _Place(index, entry) for index, (name, entry) in enumerate(entries)}


def _read_places(stream: BinaryIO, size: int) -> tuple[bytes, Mapping[str, _Place]]:
    """Read the table that a record's tensors begin with; return its bytes and what it says."""
    prefix = stream.read(8)
    table = stream.read(min(int.from_bytes(prefix, "little"), size))
    return prefix + table, _places(table, size - len(prefix) - len(table))


def _find(stream: BinaryIO, record: int, name: str) -> tuple[int, _Place]:
    """Go to the first byte of a tensor; return where that is in the file, and its place."""
    stream.seek(record)
    header_bytes, tensor_bytes, _ = _HEAD.unpack(stream.read(_HEAD.size))
    stream.seek(header_bytes, os.SEEK_CUR)
    _, places = _read_places(stream, tensor_bytes)
    begin = stream.seek(places[name].entry.data_offsets[0], os.SEEK_CUR)
    return begin, places[name]


def _checksum(stream: BinaryIO, size: int, also: Callable[[bytes], object] = lambda _: None) -> int:
    """Return the CRC-32 of the next `size` bytes; `also` gets them, piece by piece."""
    checksum = 0
    while size > 0:
        chunk = stream.read(min(_CHUNK, size))
        if not chunk:
            raise ValueError("the file ends here")
        also(chunk)
        checksum, size = zlib.crc32(chunk, checksum), size - len(chunk)
    return checksum


def _scan(stream: BinaryIO) -> tuple[Kept, _Record] | None:
    """Read one record without holding its tensors; None if it is not whole."""
    begin, head = stream.tell(), stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    header_bytes, tensor_bytes, expected = _HEAD.unpack(head)
    left = os.fstat(stream.fileno()).st_size - stream.tell()
    if header_bytes + tensor_bytes > left:
        return None
    header = stream.read(header_bytes)
    digest = hashlib.sha256(header)
    try:
        checksums = _checksums(stream, tensor_bytes, digest.update)
        if digest.digest() != expected:
            return None
        return _KEPT.validate_json(header), _record(begin, checksums)
    except _UNREADABLE:  # torn, or written by another release (ValidationError is a ValueError)
        return None


def _checksums(stream: BinaryIO, size: int, also: Callable[[bytes], object]) -> list[int]:
    """Return the CRC-32 of each tensor of a record; `also` gets every byte of them all."""
    if size == 0:  # a reply without an update
        return []
    table, places = _read_places(stream, size)
    also(table)
    # The tensors follow each other in the order of the table.
    return [_checksum(stream, place.entry.bytes, also) for place in places.values()]
