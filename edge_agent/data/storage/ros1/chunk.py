"""A chunk of a ROS 1 bag: the part that messages are compressed, indexed and found in."""

from typing import NamedTuple

from edge_agent.data.storage.ros1.records import Read
from fleet_model.errors import FrameError

# Recorders close a chunk at 768 kB, or after the one message that is larger. More than this is a
# few bytes that claim to become gigabytes.
LARGEST_CHUNK = 2**28


class Chunk(NamedTuple):
    """Where a chunk's data are in the file."""

    data: int
    size: int  # compressed; of a cut file only what is there
    compression: bytes
    whole: bool = True  # False: the file ends in it


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
    content = inflate(read(chunk.data, chunk.size), chunk)
    return (lambda at, size: content[at : at + size]), len(content)


def inflate(data: bytes, chunk: Chunk) -> bytes:
    """Return the decompressed data of a chunk; of a cut one what is left.

    Raises:
        FrameError: they are damaged. Which messages are, nobody can tell: the checksum is of all.
    """
    import bz2

    import lz4.frame

    kinds = {b"bz2": bz2.BZ2Decompressor, b"lz4": lz4.frame.LZ4FrameDecompressor}
    kind = kinds.get(chunk.compression)
    if kind is None:
        name = chunk.compression[:20].decode(errors="replace")
        raise FrameError(f"unknown compression {name!r}", "chunk decompression")
    decompressor = kind()
    try:
        content: bytes = decompressor.decompress(data, max_length=LARGEST_CHUNK)
    except (OSError, EOFError, ValueError, RuntimeError, MemoryError) as error:
        raise FrameError(f"does not decompress: {error}", "chunk decompression") from None
    if chunk.whole and not decompressor.eof:
        raise FrameError("its compressed data do not end", "chunk decompression")
    return content
