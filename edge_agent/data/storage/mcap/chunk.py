"""Read single messages out of the chunks of an MCAP file, each chunk checked or unpacked once."""

import os
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from struct import iter_unpack
from threading import Lock
from typing import NamedTuple
from weakref import finalize
from zlib import crc32

from edge_agent.data.storage.compression import CHUNK_LIMIT, LZ4_MAGIC, ZSTD_MAGIC, unpack_prefix
from edge_agent.data.storage.mcap.records import (
    CHUNK,
    CHUNK_HEAD,
    HEAD,
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
_KEPT_UNPACKED = 2  # chunks: readers that load ahead with threads look back by one
_BLOCK = 1 << 20  # bytes
_MAGICS = {ZSTD_MAGIC: "zstd", LZ4_MAGIC: "lz4"}

Index = dict[int, list[tuple[int, int]]]  # channel -> (time, where in the unpacked records)


class _Failure(NamedTuple):
    reason: str
    why: str


class _Unpacked(NamedTuple):
    content: bytes
    failure: _Failure | None


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
    is_checked: bool = False
    failure: _Failure | None = None
    moved: dict[MessageHead, MessageHead] | None = None  # what a wrong message index means


class ChunkReader:
    """The bytes of one MCAP file. All of it may be used by several threads at once."""

    def __init__(self, descriptor: int, name: str, size: int) -> None:
        """Read `size` bytes from a file and own its descriptor; `name` is for errors."""
        self.name, self.size = name, size
        self._descriptor = descriptor
        self._close = finalize(self, os.close, descriptor)
        self._lock = Lock()
        self._unpacked: dict[int, _Unpacked] = {}  # the last chunks, oldest first
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
        content = None if chunk is None else self._ready(chunk)
        found = self._take(chunk, content, message)
        if found is None and chunk is not None and not message.end:
            meant = self._moved(chunk).get(message)
            found = self._take(chunk, content, meant) if meant else None
        if found is None:
            where = self.where(chunk.at if chunk else message.at)
            inside = f", at byte {message.at} of the chunk there" if chunk else ""
            raise FrameError(f"{where}{inside}: no whole message", "damaged file")
        return found

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
            if op != MESSAGE_INDEX or size != entries + 6 or entries % 16 or at > length:
                return None
            if channel in index:
                return None
            if entries:
                index[channel] = list(iter_unpack("<QQ", data[begin:at]))
        return index if _is_possible(index, chunk) else None

    def span(self, chunk: Chunk, channels: Container[int]) -> Span:
        """Return the records of a chunk, of a cut one as many as there are; see Span.

        They are not checked: `load` does that.

        Raises:
            FrameError: they cannot be unpacked.
        """
        try:
            content = self._ready(chunk)
        except FrameError as error:
            if error.reason != "chunk checksum":
                raise
            content = self._kept(chunk)
        if content is None:
            begin, length = chunk.content, self._stored(chunk)

            def read(at: int, count: int) -> bytes:
                return self.read(begin + at, min(count, length - at))

            return Span(read, length, channels, is_cut=chunk.is_cut)
        take = partial(_part, content)
        return Span(take, len(content), channels, is_cut=chunk.is_cut)

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
        if not 0 <= count <= _MESSAGE_LIMIT or (message.end and base + message.end != end):
            return None
        data = memoryview(read_large(body, min(count + HEAD.size, limit - body)))
        if len(data) < count or not (message.end or can_follow(bytes(data[count:]), limit - end)):
            return None
        return data[:count]

    def _ready(self, chunk: Chunk) -> bytes | None:
        """Return the unpacked records, None where they lie in the file as they are."""
        content = None
        if chunk.compression or not chunk.is_checked:
            with self._lock:
                content = self._prepare(chunk)
        if chunk.failure is not None:
            reason, why = chunk.failure
            raise FrameError(f"{self.where(chunk.at)}: {why}", reason)
        return content

    def _prepare(self, chunk: Chunk) -> bytes | None:
        content = self._kept(chunk)
        if content is not None or chunk.failure is not None:
            return content
        crc = self._checksum(chunk)
        if chunk.compression:
            content = self._unpack(chunk)
            found = crc32(content) if crc and content is not None else crc
        else:
            found = self._stored_checksum(chunk) if crc else crc
        if chunk.failure is None and found != crc:
            chunk.failure = _Failure("chunk checksum", "the chunk's checksum is wrong")
        chunk.is_checked = True
        if content is not None:
            self._unpacked[chunk.at] = _Unpacked(content, chunk.failure)
            while len(self._unpacked) > _KEPT_UNPACKED:
                del self._unpacked[next(iter(self._unpacked))]
        return content

    def _kept(self, chunk: Chunk) -> bytes | None:
        kept = self._unpacked.get(chunk.at)
        if kept is None:
            return None
        chunk.failure = kept.failure
        return kept.content

    def _checksum(self, chunk: Chunk) -> int:
        """Return the checksum that the chunk must have, 0 for any; settle its compression."""
        if chunk.compression not in ("", "zstd", "lz4"):
            magic = self.read(chunk.content, 4)
            chunk.compression = _MAGICS.get(magic, chunk.compression)
        # Also where the head is damaged elsewhere, so that nothing unchecked is ever handed out.
        crc = self.read(chunk.at + _CRC_AT, 4)
        if len(crc) < 4:
            chunk.failure = _Failure("unreadable", "the chunk cannot be read")
        return 0 if chunk.is_cut else int.from_bytes(crc, "little")

    def _stored_checksum(self, chunk: Chunk) -> int:
        found = 0
        for at in range(chunk.content, chunk.end, _BLOCK):
            found = crc32(self.read(at, min(_BLOCK, chunk.end - at)), found)
        return found

    def _unpack(self, chunk: Chunk) -> bytes | None:
        if chunk.compression not in _MAGICS.values():
            why = f"the unknown compression {chunk.compression!r}, expected zstd or lz4"
            chunk.failure = _Failure("chunk decompression", why)
            return None
        packed = self.read(chunk.content, self._stored(chunk))
        content, is_whole = unpack_prefix(packed, chunk.compression, CHUNK_LIMIT)
        if not is_whole and not chunk.is_cut:
            why = f"the chunk cannot be unpacked ({chunk.compression})"
            chunk.failure = _Failure("chunk decompression", why)
            return None
        return content

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
