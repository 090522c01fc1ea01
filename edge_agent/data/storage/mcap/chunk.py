"""Read single messages out of the chunks of an MCAP file, each chunk checked or unpacked once."""

import os
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from weakref import finalize
from zlib import crc32

from edge_agent.data.storage.compression import (
    CHECKED_LIMIT,
    CHUNK_LIMIT,
    LZ4_MAGIC,
    PACKED_LIMIT,
    TOO_LARGE,
    ZSTD_MAGIC,
    too_large_chunk,
    unpack_prefix,
    unpacked_checksum,
)
from edge_agent.data.storage.kept import Kept
from edge_agent.data.storage.mcap.records import (
    CHUNK,
    CHUNK_HEAD,
    HEAD,
    INDEX_ENTRY,
    INDEX_HEAD,
    MESSAGE,
    MESSAGE_HEAD,
    MESSAGE_INDEX,
    MessageHead,
    can_follow,
)
from edge_agent.data.storage.mcap.walk import Span, read_chunk_head, walk
from edge_agent.data.storage.read_buffers import ReadBuffers
from fleet_model.errors import FrameError

_CRC_AT = 33  # bytes into a chunk record
_INDEX_LIMIT = 1 << 30  # bytes of one chunk's message indexes
_MESSAGE_LIMIT = 1 << 30  # bytes
_BLOCK = 1 << 20  # bytes
_MAGICS = {ZSTD_MAGIC: "zstd", LZ4_MAGIC: "lz4"}

Index = dict[int, list[tuple[int, int]]]  # channel -> (time, where in the unpacked records)


class _Failure(NamedTuple):
    reason: str
    why: str


_WRONG_CHECKSUM = _Failure("chunk checksum", "the chunk's checksum is wrong")


class _Records(NamedTuple):
    """The records of a chunk as they can be read."""

    content: bytes | None  # None: they lie in the file as they are
    failure: _Failure | None = None
    is_beyond: bool = False  # there are more than CHUNK_LIMIT, `content` is the first of them


@dataclass(eq=False, slots=True)
class Chunk:
    """Where a chunk lies, and what reading it has shown so far."""

    at: int  # of its opcode
    content: int  # where its records begin
    end: int
    index_end: int  # behind its message indexes
    start_ns: int
    size: int  # bytes of its records when unpacked, as it claims
    compression: str
    channels: frozenset[int] | None = None  # those with messages by the summary; None: not known
    is_cut: bool = False  # the file ends in it
    stored: _Records | None = None  # what was found out of one that is not compressed
    moved: dict[MessageHead, MessageHead] | None = None  # what a wrong message index means


class ChunkReader:
    """The bytes of one MCAP file. All of it may be used by several threads at once."""

    def __init__(self, descriptor: int, name: str, size: int) -> None:
        """Read `size` bytes from a file and own its descriptor; `name` is for errors."""
        self.name, self.size = name, size
        self._descriptor = descriptor
        self._close = finalize(self, os.close, descriptor)
        self._unpacked = Kept[int, _Records]()
        self._buffers = ReadBuffers()

    def read(self, at: int, count: int) -> bytes:
        """Return `count` bytes, fewer where the file ends or its disk fails."""
        try:
            return os.pread(self._descriptor, count, at)
        except (OSError, OverflowError, MemoryError):
            return b""

    def _read_large(self, at: int, count: int) -> memoryview:
        """Return what `read` does, in memory that may have held an earlier message."""
        try:
            buffer = self._buffers.take(count)
            return buffer[: os.preadv(self._descriptor, [buffer], at)].toreadonly()
        except (OSError, OverflowError, MemoryError):
            return memoryview(b"")

    def close(self) -> None:
        """Close the file now; without, that happens with the last reference to this object."""
        self._descriptor = -1  # the number may belong to another file from now on
        self._unpacked.clear()
        self._close()

    def where(self, at: int) -> str:
        """Return the place of byte `at` for people."""
        return f"{self.name} at byte {at}"

    def is_there(self, chunk: Chunk) -> bool:
        """Return whether the chunk's own head, or its message indexes, say the same as `chunk`."""
        name = len(chunk.compression)
        begin = self.read(chunk.at, CHUNK_HEAD.size)
        if len(begin) == CHUNK_HEAD.size and chunk.content == chunk.at + CHUNK_HEAD.size + name + 8:
            op, length, _, _, size, _, count = CHUNK_HEAD.unpack(begin)
            end = chunk.at + HEAD.size + length
            if (op, size, count, end) == (CHUNK, chunk.size, name, chunk.end):
                return True
        head = read_chunk_head(Span(self.read, self.size), chunk.at, strictly=True)
        if head is not None and (head.content, head.end) == (chunk.content, chunk.end):
            return True
        return bool(self.index(chunk))

    def load(self, chunk: Chunk | None, message: MessageHead) -> memoryview:
        """Return the bytes of a message; with `end` 0 it was found by a message index.

        Raises:
            FrameError: they are damaged, or their chunk fails its checksum.
        """
        if self._descriptor < 0:
            raise FrameError(f"{self.name}: is closed already")
        records = _Records(None) if chunk is None else self._records(chunk)
        if chunk is not None and records.failure is not None:
            raise FrameError(
                f"{self.where(chunk.at)}: {records.failure.why}", records.failure.reason
            )
        found = self._take(chunk, records.content, message)
        if found is None and chunk is not None and not message.end:
            meant = self._moved(chunk).get(message)
            found = self._take(chunk, records.content, meant) if meant else None
        if found is None and chunk is not None and records.is_beyond:
            raise too_large_chunk(self.where(chunk.at), chunk.size)
        if found is None:
            where = self.where(chunk.at if chunk else message.at)
            inside = f", at byte {message.at} of the chunk there" if chunk else ""
            raise FrameError(f"{where}{inside}: no whole message", "damaged file")
        return found

    def beyond(self, chunk: Chunk) -> FrameError | None:
        """Return why only the first records of a chunk are read, None where all are."""
        if not self._records(chunk).is_beyond:
            return None
        return too_large_chunk(self.where(chunk.at), chunk.size)

    def index(self, chunk: Chunk) -> Index | None:
        """Return where the chunk's messages are, {} if that was not written, None if damaged."""
        length = chunk.index_end - chunk.end
        data = self.read(chunk.end, length) if length < _INDEX_LIMIT else b""
        if len(data) != length:
            return None
        index: Index = {}
        at = 0
        while at < length:
            if length - at < INDEX_HEAD.size:
                return None
            op, size, channel, entries = INDEX_HEAD.unpack_from(data, at)
            begin, at = at + INDEX_HEAD.size, at + HEAD.size + size
            if (
                op != MESSAGE_INDEX
                or size != entries + 6
                or entries % INDEX_ENTRY.size
                or at > length
            ):
                return None
            if channel in index:
                return None
            if entries:
                index[channel] = list(INDEX_ENTRY.iter_unpack(data[begin:at]))
        return index if _is_possible(index, chunk) else None

    def span(self, chunk: Chunk, channels: Container[int]) -> Span:
        """Return the records of a chunk, of a cut one as many as there are; see Span.

        They are not checked: `load` does that.

        Raises:
            FrameError: they cannot be unpacked.
        """
        content, failure, is_beyond = self._records(chunk)
        if failure is not None and failure.reason != "chunk checksum":
            raise FrameError(f"{self.where(chunk.at)}: {failure.why}", failure.reason)
        is_cut = chunk.is_cut or is_beyond
        if content is not None:
            take = partial(_part, content)
            return Span(take, len(content), channels, chunk.start_ns, is_cut=is_cut)
        begin, length = chunk.content, self._stored(chunk)

        def stored(at: int, count: int) -> bytes:
            return self.read(begin + at, min(count, length - at))

        return Span(stored, length, channels, chunk.start_ns, is_cut=is_cut)

    def _stored(self, chunk: Chunk) -> int:
        return min(chunk.end, self.size) - chunk.content

    def _take(
        self, chunk: Chunk | None, content: bytes | None, message: MessageHead
    ) -> memoryview | None:
        """Return a message's bytes if the records agree with what is known of it."""
        read: Callable[[int, int], bytes] = self.read
        read_large: Callable[[int, int], bytes | memoryview] = self._read_large
        if content is not None:
            base, limit = 0, len(content)
            read = read_large = partial(_part, content)
        elif chunk is not None:
            base, limit = chunk.content, chunk.content + self._stored(chunk)
        else:
            base, limit = 0, self.size
        at = base + message.at
        body = at + MESSAGE_HEAD.size
        head = read(at, MESSAGE_HEAD.size)
        if len(head) < MESSAGE_HEAD.size:
            return None
        op, length, channel, _, time_ns, _ = MESSAGE_HEAD.unpack(head)
        end = at + HEAD.size + length
        if (op, channel, time_ns) != (MESSAGE, message.channel, message.time_ns) or end > limit:
            return None
        count = end - body
        if count < 0 or (message.end and base + message.end != end):
            return None
        if count > _MESSAGE_LIMIT:
            sizes = f"a message of {-(-count >> 20)} MB, at most {_MESSAGE_LIMIT >> 20} MB are read"
            raise FrameError(f"{self.where(at)}: {sizes}", TOO_LARGE)
        data = memoryview(read_large(body, min(count + HEAD.size, limit - body)))
        if len(data) < count or not (message.end or can_follow(bytes(data[count:]), limit - end)):
            return None
        return data[:count]

    def _records(self, chunk: Chunk) -> _Records:
        """Return the records of a chunk, checked."""
        if chunk.compression:
            return self._unpacked.get(chunk.at, lambda _: self._unpack(chunk))
        if chunk.stored is None:
            crc = self._checksum(chunk)
            is_right = not crc or crc == self._stored_checksum(chunk)
            chunk.stored = _Records(None, None if is_right else _WRONG_CHECKSUM)
        return chunk.stored

    def _unpack(self, chunk: Chunk) -> tuple[_Records, int]:
        """Return the records of a compressed chunk, and how many bytes of memory they take."""
        kind = chunk.compression
        if kind not in _MAGICS.values():
            kind = _MAGICS.get(self.read(chunk.content, 4), kind)
        if kind not in _MAGICS.values():
            why = f"the unknown compression {kind!r}, expected zstd or lz4"
            return _Records(None, _Failure("chunk decompression", why)), 0
        if chunk.size > CHECKED_LIMIT:
            size = (
                f"a chunk of {-(-chunk.size >> 30)} GB, at most {CHECKED_LIMIT >> 30} GB are read"
            )
            return _Records(None, _Failure(TOO_LARGE, f"{size}; rewrite it with smaller chunks")), 0
        packed = self.read(chunk.content, min(self._stored(chunk), PACKED_LIMIT))
        content, is_whole = unpack_prefix(packed, kind, CHUNK_LIMIT)
        is_beyond = not is_whole and len(content) == CHUNK_LIMIT < chunk.size
        if not (is_whole or is_beyond or chunk.is_cut):
            why = f"the chunk cannot be unpacked ({kind})"
            return _Records(None, _Failure("chunk decompression", why)), 0
        crc = self._checksum(chunk)
        found: int | None = crc
        if crc and is_beyond:
            found = unpacked_checksum(self._blocks(chunk), kind, chunk.size)
        elif crc:
            found = crc32(content)
        failure = None if found == crc else _WRONG_CHECKSUM
        return _Records(content, failure, is_beyond), len(content)

    def _checksum(self, chunk: Chunk) -> int:
        """Return the checksum that the chunk must have, 0 for any."""
        # Also where the head is damaged elsewhere, so that nothing unchecked is ever handed out.
        return 0 if chunk.is_cut else int.from_bytes(self.read(chunk.at + _CRC_AT, 4), "little")

    def _stored_checksum(self, chunk: Chunk) -> int:
        found = 0
        for block in self._blocks(chunk):
            found = crc32(block, found)
        return found

    def _blocks(self, chunk: Chunk) -> Iterator[bytes]:
        for at in range(chunk.content, chunk.end, _BLOCK):
            yield self.read(at, min(_BLOCK, chunk.end - at))

    def _moved(self, chunk: Chunk) -> dict[MessageHead, MessageHead]:
        """Return which messages the entries of a wrong message index mean, each at most once.

        An entry with the place of a message means that one, whatever its time; one with the time
        of a message that no other entry means, that one.
        """
        if chunk.moved is None:
            index = self.index(chunk) or {}
            span = self.span(chunk, index)
            heads = (span.message_head(record) for record in walk(span, 0))
            left = {head.at: head for head in heads if head is not None}
            meant: dict[MessageHead, MessageHead] = {}
            entries = [
                MessageHead(channel, time_ns, at, 0)
                for channel, listed in index.items()
                for time_ns, at in listed
            ]
            for entry in entries:
                head = left.get(entry.at)
                if head is not None and head.channel == entry.channel:
                    meant[entry] = left.pop(entry.at)
            by_time = {(head.channel, head.time_ns): head for head in left.values()}
            for entry in entries:
                head = by_time.get((entry.channel, entry.time_ns))
                if entry not in meant and head is not None:
                    meant[entry] = by_time.pop((entry.channel, entry.time_ns))
            chunk.moved = meant
        return chunk.moved


def _part(content: bytes, at: int, count: int) -> bytes:
    return content[at : at + count]


def _is_possible(index: Index, chunk: Chunk) -> bool:
    if chunk.channels is not None and chunk.channels != index.keys():
        return False
    positions = [at for entries in index.values() for _, at in entries]
    if not positions:
        return True
    return max(positions) + MESSAGE_HEAD.size <= chunk.size and len(set(positions)) == len(
        positions
    )
