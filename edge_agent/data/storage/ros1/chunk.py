"""A chunk of a ROS 1 bag: the part that messages are compressed, indexed and found in."""

from typing import NamedTuple

from edge_agent.data.storage.compression import (
    CHUNK_LIMIT,
    PACKED_LIMIT,
    unpack_prefix,
    unpacked_checksum,
)
from edge_agent.data.storage.ros1.records import COMPRESSIONS, Read, Record
from fleet_model.errors import FrameError

_BLOCK = 1 << 20  # bytes


class Chunk(NamedTuple):
    """Where a chunk's data are in the file."""

    data: int
    size: int  # compressed; of a cut file only what is there
    compression: bytes
    whole: bool = True  # False: the file ends in it
    unpacked: int = 0  # bytes of the decompressed data, as it claims


def chunk_of(record: Record, end: int) -> Chunk:
    """Return the chunk of a record, of which only what lies before `end` is there."""
    size, compression = min(record.end, end) - record.data, record.fields[b"compression"]
    return Chunk(record.data, size, compression, record.end <= end, record.number(b"size"))


class Position(NamedTuple):
    """Where a message is in its chunk."""

    stamp_ns: int
    connection: int
    offset: int  # of its record, in the decompressed data


def chunk_reader(read: Read, chunk: Chunk) -> tuple[Read, int]:
    """Return what reads a chunk's decompressed data, and their size; raises FrameError."""
    if chunk.compression == b"none":

        def part(at: int, size: int) -> bytes:
            return read(chunk.data + at, max(0, min(size, chunk.size - at)))

        return part, chunk.size
    content = _unpack(read, chunk)
    return (lambda at, size: content[at : at + size]), len(content)


def is_beyond(chunk: Chunk, size: int) -> bool:
    """Return whether the `size` bytes that were unpacked are only the first of a large chunk."""
    return size == CHUNK_LIMIT < chunk.unpacked


def _unpack(read: Read, chunk: Chunk) -> bytes:
    """Return the decompressed data of a chunk, at most CHUNK_LIMIT; of a cut one what is left.

    Raises:
        FrameError: they are damaged. Which messages are, nobody can tell: the checksum is of all.
    """
    kind = chunk.compression[:20].decode(errors="replace")
    if chunk.compression not in COMPRESSIONS:
        raise FrameError(f"unknown compression {kind!r}", "chunk decompression")
    content, is_whole = unpack_prefix(
        read(chunk.data, min(chunk.size, PACKED_LIMIT)), kind, CHUNK_LIMIT
    )
    if not is_whole and is_beyond(chunk, len(content)):
        end = chunk.data + chunk.size
        blocks = (read(at, min(_BLOCK, end - at)) for at in range(chunk.data, end, _BLOCK))
        is_whole = unpacked_checksum(blocks, kind, chunk.unpacked) is not None
    if chunk.whole and not is_whole:
        raise FrameError(f"cannot be unpacked ({kind})", "chunk decompression")
    return content
