"""The summary at the end of an MCAP file: what it holds and where."""

from struct import Struct, error, iter_unpack, unpack_from
from typing import NamedTuple
from zlib import crc32

from edge_agent.data.storage.mcap.chunk import Chunk
from edge_agent.data.storage.mcap.records import (
    CHANNEL,
    CHUNK_INDEX,
    FOOTER,
    HEAD,
    MAGIC,
    SCHEMA,
    STATISTICS,
    Definitions,
    earliest_ns,
)
from edge_agent.data.storage.mcap.walk import Read

_FOOTER = Struct("<BQQQI")  # opcode, length, summary start, summary offset start, CRC
# Start time, end time, where the chunk is, its length, bytes of the list of message indexes ...
_CHUNK_INDEX = Struct("<qqQQI")
_CHUNK_INDEX_TAIL = Struct("<QI")  # bytes of the message indexes, length of the compression's name
_SIZES = Struct("<QQ")  # packed, unpacked
_SUMMARY_LIMIT = 1 << 30  # bytes; 20 million chunks


class Summary(NamedTuple):
    """What a reader needs not look for."""

    at: int  # where it begins and the messages end
    definitions: Definitions
    chunks: list[Chunk]  # by place; those that cannot be true are left out
    counts: dict[int, int] | None  # channel -> messages; None: not known
    is_checked: bool  # by a checksum


class Ending(NamedTuple):
    """How a file ends."""

    summary: Summary | None
    is_closed: bool  # there is a footer, so the recorder came to its end
    damaged_at: int  # where the summary is that cannot be true, else 0


def read_ending(read: Read, size: int) -> Ending:
    """Return how the file of `size` bytes ends; wrong bytes are never an error."""
    tail_at = size - _FOOTER.size - len(MAGIC)
    tail = read(tail_at, size - tail_at) if tail_at >= len(MAGIC) else b""
    if len(tail) != _FOOTER.size + len(MAGIC) or not tail.endswith(MAGIC):
        return Ending(None, is_closed=False, damaged_at=0)
    op, length, at, _, crc = _FOOTER.unpack_from(tail)
    if (op, length) != (FOOTER, _FOOTER.size - HEAD.size):
        return Ending(None, is_closed=True, damaged_at=tail_at)
    if not at:
        return Ending(None, is_closed=True, damaged_at=0)
    if not len(MAGIC) < at <= tail_at or tail_at - at > _SUMMARY_LIMIT:
        return Ending(None, is_closed=True, damaged_at=tail_at)
    content = read(at, tail_at - at)
    # The checksum covers the footer too, up to itself.
    if crc and crc32(tail[: _FOOTER.size - 4], crc32(content)) != crc:
        return Ending(None, is_closed=True, damaged_at=at)
    summary = _parse(content, at, is_checked=bool(crc))
    return Ending(summary, is_closed=True, damaged_at=0 if summary else at)


def _parse(content: bytes, summary_at: int, *, is_checked: bool) -> Summary | None:
    definitions = Definitions({}, {})
    chunks: list[Chunk] = []
    counts: dict[int, int] | None = None
    at = 0
    try:
        while at < len(content):
            op, length = HEAD.unpack_from(content, at)
            at += HEAD.size
            body = content[at : at + length]
            at += length
            if len(body) != length:
                return None
            if op in (SCHEMA, CHANNEL):
                definitions.add(op, body)
            elif op == CHUNK_INDEX:
                chunks.append(_chunk_index(body))
            elif op == STATISTICS:
                counts = _counts(body)
    except (error, ValueError):
        return None
    return Summary(summary_at, definitions, _in_place(chunks, summary_at), counts, is_checked)


def _chunk_index(body: bytes) -> Chunk:
    first_ns, last_ns, at, length, count = _CHUNK_INDEX.unpack_from(body)
    tail_at = _CHUNK_INDEX.size + count
    offsets = body[_CHUNK_INDEX.size : tail_at]
    index_length, name_length = _CHUNK_INDEX_TAIL.unpack_from(body, tail_at)
    name_at = tail_at + _CHUNK_INDEX_TAIL.size
    compression = body[name_at : name_at + name_length].decode(errors="replace")
    stored, size = _SIZES.unpack_from(body, name_at + name_length)
    end, start_ns = at + length, earliest_ns(first_ns, last_ns)
    channels = frozenset([channel for channel, _ in iter_unpack("<HQ", offsets)])
    return Chunk(at, end - stored, end, end + index_length, start_ns, size, compression, channels)


def _counts(body: bytes) -> dict[int, int]:
    (length,) = unpack_from("<I", body, 42)
    return dict(iter_unpack("<HQ", body[46 : 46 + length]))


def _in_place(chunks: list[Chunk], end: int) -> list[Chunk]:
    """Return those that lie one behind the other; the place of another is searched by records."""
    kept: list[Chunk] = []
    behind = len(MAGIC)
    for chunk in sorted(chunks, key=lambda chunk: chunk.at):
        smallest = chunk.at + HEAD.size + 40 + len(chunk.compression)
        if behind <= chunk.at and smallest <= chunk.content <= chunk.end and chunk.index_end <= end:
            kept.append(chunk)
            behind = chunk.index_end
    return kept
