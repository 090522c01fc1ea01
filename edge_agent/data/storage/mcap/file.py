"""Read an .mcap file message by message, also what is left of a damaged one."""

import os
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import starmap
from operator import attrgetter
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

import numpy as np

from edge_agent.data.storage import Stored, Topic
from edge_agent.data.storage.in_order import Batch, in_blocks, in_order
from edge_agent.data.storage.mcap.chunk import Chunk, ChunkReader
from edge_agent.data.storage.mcap.records import MAGIC, Definitions, MessageHead
from edge_agent.data.storage.mcap.scan import UNDESCRIBED, Scanner
from edge_agent.data.storage.mcap.summary import Summary, read_ending
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

_ORDER, _START = attrgetter("order_ns"), attrgetter("start_ns")
_TIME_COLUMN = MessageHead._fields.index("time_ns")
_DEFINITION_ENCODINGS = ("ros1msg", "ros2msg")


class McapFile:
    """One MCAP file, read with pread: memory stays flat, a file that shrinks is an error.

    What the summary and the message indexes say is believed as far as the records agree with it:
    a message is handed out only where its opcode, channel, time and length fit. Where there is no
    summary, no message index, or a wrong one, the records themselves are walked.

    Raises:
        FrameError: there is no such file, or nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and find its topics."""
        self.path = path
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            reason = "missing file" if isinstance(error, FileNotFoundError) else "unreadable"
            raise FrameError(f"{path.name}: {error.strerror}", reason) from None
        status = os.fstat(descriptor)
        size = status.st_size if S_ISREG(status.st_mode) else 0
        self._reader = ChunkReader(descriptor, path.name, size)
        try:
            self._find_topics()
        except BaseException:
            self._reader.close()
            raise

    def __enter__(self) -> "McapFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def topics(self) -> Sequence[Topic]:
        """Return every topic the file declares."""
        merged: dict[tuple[str, str, str], Topic] = {}
        for topic in self._topics.values():
            key = (topic.name, topic.type, topic.encoding)
            known = merged.get(key)
            merged[key] = (
                topic._replace(messages=known.messages + topic.messages) if known else topic
            )
        return list(merged.values())

    def messages(self, topics: Collection[str], damage: DamageLog) -> Iterator[Stored]:
        """Yield the messages of topics in the order of their times; see StorageFile."""
        wanted = {number: t for number, t in self._topics.items() if t.name in topics}
        cuts = _cuts(damage)
        yield from in_order(self._batches(wanted, damage))
        ending = self._ending
        if ending.damaged_at:
            damage.add("damaged file", self._reader.where(ending.damaged_at))
        elif not ending.is_closed and _cuts(damage) == cuts:
            damage.add("cut file", self._reader.where(self._reader.size))

    def _find_topics(self) -> None:
        size, name = self._reader.size, self.path.name
        if not size:
            raise FrameError(f"{name}: is empty", "empty")
        self._ending = read_ending(self._reader.read, size)
        summary = self._ending.summary
        self._definitions = summary.definitions if summary else Definitions({}, {})
        self._scanner = Scanner(self._reader, self._definitions, is_closed=self._ending.is_closed)
        self._parts = _parts(summary, self._reader)
        counts = _told_counts(summary)
        if counts is None:
            counts = self._count()
        channels = self._definitions.channels
        self._topics = {number: self._topic(number, counts.get(number, 0)) for number in channels}
        begins = self._reader.read(0, len(MAGIC)) == MAGIC
        if not self._topics and not (begins and self._ending.is_closed):
            what = "cut short before its first message" if begins else "no MCAP file"
            raise FrameError(f"{name}: {what}", "cut file" if begins else "damaged file")

    def _topic(self, number: int, count: int) -> Topic:
        channel = self._definitions.channels[number]
        schema = self._definitions.schemas.get(channel.schema)
        name = schema.name.replace("/msg/", "/") if schema else ""
        text = schema.text if schema and schema.encoding in _DEFINITION_ENCODINGS else ""
        return Topic(channel.topic, name, channel.encoding, text, count)

    def _count(self) -> Counter[int]:
        """Walk the whole file for its schemas and channels; count the messages of each."""
        counts, unread = Counter[int](), DamageLog()
        for found in self._scanner.walk(len(MAGIC), self._reader.size, unread):
            if isinstance(found, MessageHead):
                counts[found.channel] += 1
                continue
            index = self._reader.index(found)
            if index and index.keys() <= self._definitions.channels.keys():
                counts.update({channel: len(entries) for channel, entries in index.items()})
            else:
                counts.update(head.channel for head in self._scanner.scan(found, unread))
        return counts

    def _batches(self, wanted: Mapping[int, Topic], damage: DamageLog) -> Iterator[Batch]:
        summary = self._ending.summary
        is_checked = summary is not None and summary.is_checked
        for part in self._parts:
            chunk = part.chunk
            if chunk is None:
                yield from self._walked(part, wanted, damage)
            elif not (is_checked and chunk.channels and chunk.channels.isdisjoint(wanted)):
                yield self._batch(chunk, wanted, damage)

    def _walked(
        self, part: "_Part", wanted: Mapping[int, Topic], damage: DamageLog
    ) -> Iterator[Batch]:
        """Yield the chunks of a stretch by time, and the messages outside of chunks together."""
        chunks, lone = list[Chunk](), array("q")  # of each message: its MessageHead
        for found in self._scanner.walk(part.at, part.end, damage):
            if isinstance(found, Chunk):
                chunks.append(found)
            elif found.channel in wanted:
                lone.extend(found)
            elif found.channel not in self._topics:
                damage.add("damaged file", f"{self._reader.where(found.at)}: {UNDESCRIBED}")
        if lone:
            heads = in_blocks(np.array(lone).reshape(-1, len(MessageHead._fields)), _TIME_COLUMN)
            yield part.order_ns, self._stored(None, starmap(MessageHead, heads), wanted)
        for chunk in sorted(chunks, key=_START):
            yield self._batch(chunk, wanted, damage)

    def _batch(self, chunk: Chunk, wanted: Mapping[int, Topic], damage: DamageLog) -> Batch:
        heads = self._scanner.listed(chunk, wanted, damage)
        return chunk.start_ns, self._stored(chunk, heads, wanted)

    def _stored(
        self, chunk: Chunk | None, heads: Iterable[MessageHead], wanted: Mapping[int, Topic]
    ) -> Iterator[Stored]:
        load = self._reader.load
        for head in heads:
            yield Stored(head.time_ns, wanted[head.channel], partial(load, chunk, head))


class _Part(NamedTuple):
    """A chunk that the summary names, or a stretch that has to be walked."""

    order_ns: int
    at: int
    end: int
    chunk: Chunk | None


def _parts(summary: Summary | None, reader: ChunkReader) -> list[_Part]:
    """Return the chunks of the summary and the stretches between them, in order of time."""
    end = summary.at if summary else reader.size
    parts: list[_Part] = []
    behind, order_ns = len(MAGIC), 0
    for chunk in summary.chunks if summary else ():
        if summary and not summary.is_checked and not reader.is_there(chunk):
            continue  # it is found by walking, if it is anywhere
        if behind < chunk.at:
            parts.append(_Part(order_ns, behind, chunk.at, None))
        order_ns, behind = chunk.start_ns, chunk.index_end
        parts.append(_Part(order_ns, chunk.at, behind, chunk))
    if behind < end:
        parts.append(_Part(order_ns, behind, end, None))
    return sorted(parts, key=_ORDER)


def _told_counts(summary: Summary | None) -> Mapping[int, int] | None:
    """Return how many messages each channel has, None where the summary leaves something out."""
    if summary is None or summary.counts is None:
        return None
    used = set(summary.counts).union(*(chunk.channels or () for chunk in summary.chunks))
    return summary.counts if used <= summary.definitions.channels.keys() else None


def _cuts(damage: DamageLog) -> int:
    return sum(kind.count for kind in damage.all() if kind.kind == "cut file")
