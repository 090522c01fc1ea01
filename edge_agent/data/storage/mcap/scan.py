"""List what an MCAP file holds, by its message indexes or, where they fail, by its records."""

from collections.abc import Container, Iterator
from operator import attrgetter

from edge_agent.data.storage.mcap.chunk import Chunk, ChunkReader
from edge_agent.data.storage.mcap.records import (
    CHANNEL,
    CHUNK,
    DATA_END,
    FOOTER,
    HEAD,
    LOST,
    MESSAGE,
    MESSAGE_INDEX,
    SCHEMA,
    Definitions,
    MessageHead,
    Record,
)
from edge_agent.data.storage.mcap.walk import Span, read_chunk_head, walk
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

_DEFINITION_LIMIT = 16 << 20  # bytes of one schema
_TIME = attrgetter("time_ns")
UNDESCRIBED = "a message of a topic that the file does not describe"


class Scanner:
    """Finds chunks, messages, schemas and channels; what cannot be read goes into a DamageLog."""

    def __init__(self, reader: ChunkReader, definitions: Definitions, *, is_closed: bool) -> None:
        """Read through `reader`; `definitions` grows by what is found.

        A file that `is_closed` has a footer, so nothing of it can have been cut off.
        """
        self._reader = reader
        self._definitions = definitions
        self._is_closed = is_closed

    def walk(self, at: int, end: int, damage: DamageLog) -> Iterator[Chunk | MessageHead]:
        """Yield the chunks, and the messages outside of chunks, of a stretch of the file."""
        is_cut = end == self._reader.size and not self._is_closed
        span = Span(self._reader.read, end, self._definitions.channels, is_cut=is_cut)
        waiting: Chunk | None = None  # for its message indexes
        is_data = True
        for record in walk(span, at):
            if waiting is not None:
                if record.op == MESSAGE_INDEX:
                    waiting.index_end = record.end
                    continue
                yield _unless_in_doubt(waiting, record.op == LOST)
                waiting = None
            if record.op == FOOTER:
                return
            if record.op == CHUNK and is_data:
                waiting = self._chunk(span, record, damage)
            elif record.op in (MESSAGE, LOST) and is_data:
                head = span.message_head(record)
                if head is not None:
                    yield head
                else:
                    self._add_lost(record, damage)
            is_data = is_data and record.op != DATA_END
            if record.op in (SCHEMA, CHANNEL):
                self._define(span, record)
        if waiting is not None:
            yield _unless_in_doubt(waiting, not self._is_closed)

    def listed(self, chunk: Chunk, wanted: Container[int], damage: DamageLog) -> list[MessageHead]:
        """Return the messages of the wanted channels in a chunk, in the order of their times."""
        index = self._reader.index(chunk)
        known = self._definitions.channels.keys()
        if index and index.keys() <= known:
            heads = [
                MessageHead(channel, time_ns, at, 0)
                for channel, entries in index.items()
                if channel in wanted
                for time_ns, at in entries
            ]
        else:
            found = self.scan(chunk, damage)
            heads = [head for head in found if head.channel in wanted]
            unknown = sum(head.channel not in known for head in found)
            if unknown:
                where = f"{self._reader.where(chunk.at)}, in the chunk there"
                damage.add("damaged file", f"{where}: {UNDESCRIBED}", unknown)
            elif index or index is None:
                damage.add("damaged file", self._reader.where(chunk.end))
        heads.sort(key=_TIME)
        return heads

    def scan(self, chunk: Chunk, damage: DamageLog) -> list[MessageHead]:
        """Return the messages of a chunk by its records alone, in the order they lie in."""
        try:
            span = self._reader.span(chunk, self._definitions.channels)
        except FrameError as error:
            damage.add(error.reason, str(error))
            return []
        heads: list[MessageHead] = []
        for record in walk(span, 0):
            head = span.message_head(record)
            if head is not None:
                heads.append(head)
            elif record.op in (MESSAGE, LOST) and not span.is_cut:
                damage.add("damaged file", f"{self._reader.where(chunk.at)}, in the chunk there")
            if record.op in (SCHEMA, CHANNEL):
                self._define(span, record)
        beyond = self._reader.beyond(chunk)
        if beyond is not None:
            damage.add(beyond.reason, str(beyond))
        return heads

    def _define(self, span: Span, record: Record) -> None:
        size = record.end - record.at - HEAD.size
        if size <= _DEFINITION_LIMIT:
            self._definitions.add(record.op, span.get(record.at + HEAD.size, size))

    def _chunk(self, span: Span, record: Record, damage: DamageLog) -> Chunk | None:
        head = read_chunk_head(span, record.at)
        if head is None:  # the file changed meanwhile
            return None
        is_cut = head.end > span.end
        if is_cut:
            self._add_lost(Record(LOST, span.end, span.end), damage)
        return Chunk(
            head.at,
            head.content,
            min(head.end, span.end),
            min(head.end, span.end),
            head.start_ns,
            head.size,
            head.compression,
            is_cut=is_cut,
        )

    def _add_lost(self, record: Record, damage: DamageLog) -> None:
        is_end = record.end >= self._reader.size and not self._is_closed
        damage.add("cut file" if is_end else "damaged file", self._reader.where(record.at))


def _unless_in_doubt(chunk: Chunk, is_in_doubt: bool) -> Chunk:
    """Return the chunk, without its message indexes where one behind them may be missing."""
    if is_in_doubt:
        chunk.index_end = chunk.end
    return chunk
