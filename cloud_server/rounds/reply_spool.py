"""The replies of one round in one append-only file: kept as they arrive, read back one by one.

A record is a head (two lengths, a digest), a JSON header and the tensors as safetensors. After a
power cut the file ends with whole records: what was not yet synced is cut off at opening, and its
robots are asked again.
"""

import hashlib
import logging
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from fleet_model.durable import fsync_directory
from fleet_model.errors import StorageError
from fleet_model.protocol.outcome import Outcome, parse_outcome
from fleet_model.types import Metrics, Update
from fleet_model.weights import safetensors_pieces, view_safetensors

log = logging.getLogger(__name__)

_HEAD = struct.Struct("<IQ32s")  # bytes of the header, bytes of the tensors, sha256 of both
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A reply that was taken, without its tensors."""

    ticket: str
    robot: str
    site: str
    round: int  # in which the robot was asked
    verdict: Annotated[Outcome, BeforeValidator(parse_outcome)]  # ACCEPTED until judged
    base_version: int = 0
    num_examples: int = 0
    num_steps: int = 0
    update_bytes: int = 0
    metrics: Metrics = field(default_factory=dict)
    norm: float = 0.0


_KEPT = TypeAdapter(Kept)


class ReplySpool:
    """One file; one process writes it. OSError where the disk fails."""

    def __init__(self, file: Path) -> None:
        """Take up what is there."""
        self._file = file
        self._kept: list[Kept] = []
        self._places: dict[str, int] = {}  # ticket -> where its record begins
        self._end = 0  # of the last whole record
        if file.exists():
            self._take_up()

    @property
    def kept(self) -> tuple[Kept, ...]:
        """Return the replies in the order they were kept."""
        return tuple(self._kept)

    def keep(self, replies: Sequence[tuple[Kept, Update | None]]) -> None:
        """Append with one fsync for all; after an error the file is as it was before."""
        places = []
        try:
            with self._file.open("ab") as stream:
                for kept, update in replies:
                    places.append((kept, stream.tell()))
                    _append(stream, kept, update)
                stream.flush()
                os.fsync(stream.fileno())
                end = stream.tell()
        except OSError:
            if self._file.exists():
                os.truncate(self._file, self._end)
            raise
        if self._end == 0:
            fsync_directory(self._file.parent)
        self._end = end
        for kept, server_dir in places:
            self._kept.append(kept)
            self._places[kept.ticket] = server_dir

    def read(self, kept: Kept) -> Update:
        """Return one update, bit for bit; raises StorageError if it is not what was written."""
        with self._file.open("rb") as stream:
            stream.seek(self._places[kept.ticket])
            header_bytes, tensor_bytes, digest = _HEAD.unpack(stream.read(_HEAD.size))
            found = hashlib.sha256(stream.read(header_bytes))
            tensors = stream.read(tensor_bytes)
        found.update(tensors)
        if found.digest() != digest:
            raise self._damaged(kept)
        try:
            weights = view_safetensors(tensors)
        except ValueError as error:
            raise self._damaged(kept) from error
        return Update(
            robot=kept.robot,
            base_version=kept.base_version,
            weights=weights,
            num_examples=kept.num_examples,
            num_steps=kept.num_steps,
            metrics=kept.metrics,
        )

    def remove(self) -> None:
        """Delete the file."""
        self._file.unlink(missing_ok=True)

    def _damaged(self, kept: Kept) -> StorageError:
        return StorageError(
            f"{self._file.name}: the reply of robot {kept.robot} is damaged on disk; check the "
            "disk, then `cloud-server runs resume`: the robot is asked again"
        )

    def _take_up(self) -> None:
        """Find the whole records, and cut off what follows them."""
        with self._file.open("rb") as stream:
            while (kept := _scan(stream)) is not None:
                self._kept.append(kept)
                self._places[kept.ticket] = self._end
                self._end = stream.tell()
        if torn := self._file.stat().st_size - self._end:
            log.warning("%s: %d bytes of an unfinished reply are dropped", self._file.name, torn)
            os.truncate(self._file, self._end)


def _append(stream: BinaryIO, kept: Kept, update: Update | None) -> None:
    header = _KEPT.dump_json(kept)
    pieces = [] if update is None else safetensors_pieces(update.weights)
    digest = hashlib.sha256(header)
    for piece in pieces:
        digest.update(piece)
    size = sum(len(piece) for piece in pieces)
    stream.write(_HEAD.pack(len(header), size, digest.digest()))
    stream.write(header)
    stream.writelines(pieces)


def _scan(stream: BinaryIO) -> Kept | None:
    """Read one record without holding its tensors; None if it is not whole."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    header_bytes, tensor_bytes, expected = _HEAD.unpack(head)
    left = os.fstat(stream.fileno()).st_size - stream.tell()
    if header_bytes + tensor_bytes > left:
        return None
    header = stream.read(header_bytes)
    digest = hashlib.sha256(header)
    while tensor_bytes:
        chunk = stream.read(min(_CHUNK, tensor_bytes))
        digest.update(chunk)
        tensor_bytes -= len(chunk)
    if digest.digest() != expected:
        return None
    try:
        return _KEPT.validate_json(header)
    except ValidationError:  # written by another release
        return None
