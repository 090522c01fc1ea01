"""Go from record to record through a stretch of an MCAP file, also where it is damaged.

Records that follow each other are believed as they are, whatever a clock did. Nothing in a record
marks its beginning, though: after damage the next one is found by what it must hold: a chunk and a
definition by lengths that have to add up, a message by its channel, its times, and the record
behind it.
"""

import re
from collections.abc import Callable, Container, Iterator
from struct import unpack_from

from edge_agent.data.storage.mcap.records import (
    CHANNEL,
    CHUNK,
    CHUNK_FIXED,
    CHUNK_HEAD,
    DATA_END,
    FOOTER,
    HEAD,
    HEADER,
    INDEX_HEAD,
    KNOWN_OPCODES,
    LOST,
    MAGIC,
    MESSAGE,
    MESSAGE_HEAD,
    MESSAGE_INDEX,
    SCHEMA,
    SMALLEST,
    ChunkHead,
    MessageHead,
    Record,
    earliest_ns,
    texts_fit,
)

_LONGEST_NAME = 16  # of a compression; there are "", "zstd" and "lz4"
_LOOK_AHEAD = 3  # records; in flat pictures a few bytes alone often look like a record
_DEFINITION_LIMIT = 16 << 20  # bytes
_NEAR_NS = 30 * 86_400 * 10**9  # a recording may pause that long
_LATEST_NS = 6_000_000_000_000_000_000  # in the year 2160; as a time, most text lies later
_WINDOW = 4 << 10  # bytes; a record's head costs one small read
_LARGEST_WINDOW = 256 << 10
_SEARCH_BLOCK = 1 << 20
_CANDIDATE = re.compile(rb"[\x03-\x06](?=.{5}\x00{3})", re.DOTALL)  # shorter than 2^40 bytes

Read = Callable[[int, int], bytes]  # (from, how many) -> as many as there are


class Span:
    """A stretch of a file or of unpacked records, read through a window that fits the reading."""

    def __init__(
        self,
        read: Read,
        end: int,
        channels: Container[int] = (),
        near_ns: int = 0,
        *,
        is_cut: bool = False,
    ) -> None:
        """Read through `read`, never behind `end`, where a record may be cut if `is_cut`.

        `channels` are those whose messages are believed without a second look; they may grow.
        `near_ns` is a time that a message found after damage would be near to.
        """
        self.read, self.end, self.channels, self.is_cut = read, end, channels, is_cut
        self._at, self._data, self._held, self._window = 0, b"", 0, _WINDOW
        self._is_last = False  # the window holds all there is
        self._zeros_at: int | None = None
        self._last_ns = near_ns

    def get(self, at: int, count: int) -> bytes:
        """Return `count` bytes from `at`, fewer at the end."""
        begin = at - self._at
        if begin < 0 or (begin + count > self._held and not self._is_last):
            self._fill(at, count)
            begin = 0
        return self._data[begin : begin + count]

    def message_head(self, record: Record) -> MessageHead | None:
        """Return the head of a record that `walk` found, None where it is no message after all."""
        if record.op != MESSAGE:
            return None
        head = self.get(record.at, MESSAGE_HEAD.size)
        _, _, channel, _, time_ns, publish_ns = MESSAGE_HEAD.unpack(head)
        if not self.is_timely(time_ns, publish_ns) and (
            channel not in self.channels or _is_of_another_kind(self, record)
        ):
            return None
        self._last_ns = time_ns
        return MessageHead(channel, time_ns, record.at, record.end)

    def is_timely(self, time_ns: int, publish_ns: int) -> bool:
        """Return whether these are likely to be a message's times."""
        if abs(time_ns - self._last_ns) < _NEAR_NS:
            return True
        return abs(time_ns - publish_ns) < _NEAR_NS and 0 <= time_ns < _LATEST_NS

    def zeros_at(self) -> int:
        """Return from where on there are only zeros: a power loss often leaves a file so."""
        if self._zeros_at is None:
            self._zeros_at = self.end
            while self._zeros_at > 0:
                begin = max(self._zeros_at - _SEARCH_BLOCK, 0)
                kept = len(self.read(begin, self._zeros_at - begin).rstrip(b"\0"))
                self._zeros_at = begin + kept
                if kept:
                    break
        return self._zeros_at

    def _fill(self, at: int, count: int) -> None:
        near = 0 <= at - self._at <= self._held + _WINDOW
        self._window = min(self._window * 2, _LARGEST_WINDOW) if near else _WINDOW
        wanted = min(max(count, self._window), self.end - at)
        self._at, self._data = at, self.read(at, wanted) if wanted > 0 else b""
        self._held = len(self._data)
        self._is_last = at + self._held >= self.end


def walk(span: Span, at: int) -> Iterator[Record]:
    """Yield the records from `at` to the end of `span`, and LOST where there is none."""
    before = LOST
    while at < span.end:
        head = span.get(at, HEAD.size)
        op, length = HEAD.unpack(head) if len(head) == HEAD.size else (LOST, 0)
        end = at + HEAD.size + length
        if op == CHUNK:
            chunk = read_chunk_head(span, at)
            end = chunk.end if chunk else 0
        elif (
            end > span.end
            or length < SMALLEST.get(op, 0)
            or not (_is_whole(span, at, op, length) or _can_begin(span, end))
        ):
            end = 0
        if not end or (end > span.end and not span.is_cut):
            op, end = LOST, _find(span, at + 1)
        elif op == MESSAGE and before in (CHUNK, MESSAGE_INDEX) and _is_index(span, at, length):
            op = LOST  # its opcode is a bit away, and nobody writes messages there
        yield Record(op, at, end)
        at, before = end, op


def read_chunk_head(span: Span, at: int, *, strictly: bool = False) -> ChunkHead | None:
    """Return what the chunk at `at` says, None where there is none.

    One of its two lengths may be damaged if a record follows where the other one says, unless
    `strictly`.
    """
    head = span.get(at, CHUNK_HEAD.size + _LONGEST_NAME + 8)
    if len(head) < CHUNK_HEAD.size + 8:
        return None
    op, length, first_ns, last_ns, size, _, count = CHUNK_HEAD.unpack_from(head)
    if op != CHUNK or count > _LONGEST_NAME or len(head) < CHUNK_HEAD.size + count + 8:
        return None
    name = head[CHUNK_HEAD.size : CHUNK_HEAD.size + count].decode(errors="replace")
    (stored,) = unpack_from("<Q", head, CHUNK_HEAD.size + count)
    content = at + HEAD.size + CHUNK_FIXED + count
    ends = {content + stored, at + HEAD.size + length}
    if len(ends) > 1:
        if strictly:
            return None
        ends = {end for end in ends if content < end <= span.end and _can_begin(span, end)}
        if len(ends) != 1:
            return None
    return ChunkHead(at, content, ends.pop(), earliest_ns(first_ns, last_ns), size, name)


def _can_begin(span: Span, at: int) -> bool:
    """Return whether a record may begin at `at`, as far as the next few heads can tell."""
    for _ in range(_LOOK_AHEAD):
        head = span.get(at, MESSAGE_HEAD.size)
        if len(head) < HEAD.size:
            cut = span.is_cut and head[:1] and head[0] <= KNOWN_OPCODES
            return bool(not head or cut or MAGIC.startswith(head))
        op, length = HEAD.unpack_from(head)
        end = at + HEAD.size + length
        if length < SMALLEST.get(op, 0):
            return head.startswith(MAGIC) or (op == LOST and at >= span.zeros_at())
        if end > span.end:
            return bool(span.is_cut and op <= KNOWN_OPCODES and length < 1 << 40)
        if _is_message(span, head) or _is_whole(span, at, op, length):
            return True
        at = end
    return True


def _is_message(span: Span, head: bytes) -> bool:
    """Return whether these bytes begin a message of a channel that is known."""
    if head[0] != MESSAGE or len(head) < MESSAGE_HEAD.size:
        return False
    _, _, channel, _, time_ns, publish_ns = MESSAGE_HEAD.unpack(head)
    return channel in span.channels and span.is_timely(time_ns, publish_ns)


def _is_whole(span: Span, at: int, op: int, length: int) -> bool:
    """Return whether a record proves by itself that its length is right."""
    if op in (HEADER, SCHEMA, CHANNEL):
        return length <= _DEFINITION_LIMIT and texts_fit(op, span.get(at + HEAD.size, length))
    if op == MESSAGE_INDEX:
        return _is_index(span, at, length)
    if op == CHUNK:
        return read_chunk_head(span, at, strictly=True) is not None
    return op in (DATA_END, FOOTER) and length == SMALLEST[op]


def _is_index(span: Span, at: int, length: int) -> bool:
    """Return whether a record of any opcode has its length twice, as message indexes do."""
    _, _, _, entries = INDEX_HEAD.unpack(span.get(at, INDEX_HEAD.size))
    return bool(entries + 6 == length and entries % 16 == 0)


def _is_of_another_kind(span: Span, record: Record) -> bool:
    """Return whether what calls itself a message proves to be a record whose opcode is damaged."""
    length = record.end - record.at - HEAD.size
    body = span.get(record.at + HEAD.size, min(length, _DEFINITION_LIMIT))
    return _is_index(span, record.at, length) or any(
        texts_fit(op, body) for op in (HEADER, SCHEMA, CHANNEL)
    )


def _find(span: Span, at: int) -> int:
    """Return where the next recognizable record begins, else the end of the span."""
    while at < span.end:
        block = span.read(at, min(_SEARCH_BLOCK, span.end - at))
        for match in _CANDIDATE.finditer(block):
            if _begins(span, at + match.start()):
                return at + match.start()
        if len(block) < _SEARCH_BLOCK:
            break
        at += len(block) - HEAD.size
    return span.end


def _begins(span: Span, at: int) -> bool:
    head = span.get(at, MESSAGE_HEAD.size)
    op, length = HEAD.unpack_from(head)
    end = at + HEAD.size + length
    if op == CHUNK:
        return _is_whole(span, at, op, length)
    if length < SMALLEST[op] or end > span.end:
        return False
    if op == MESSAGE:
        return _is_message(span, head) and _can_begin(span, end)
    return _is_whole(span, at, op, length)
