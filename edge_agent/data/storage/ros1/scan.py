"""Find the messages of a ROS 1 bag without its index: a recording that lost power has none.

Uncompressed chunks are walked through as if their records stood in the file itself, so that a
chunk with a damaged beginning or length loses nothing but what is damaged.
"""

from array import array

from edge_agent.data.storage import Topic
from edge_agent.data.storage.compression import too_large_chunk
from edge_agent.data.storage.ros1.chunk import Chunk, chunk_of, chunk_reader, is_beyond
from edge_agent.data.storage.ros1.records import (
    CHUNK,
    CONNECTION,
    MESSAGE,
    Read,
    Record,
    find_record,
    read_fields,
    read_record,
)
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

_LONGEST_DEFINITION = 2**22
_EVERYTHING = (MESSAGE, CHUNK, CONNECTION)


class Scan:
    """What was found in the parts of a bag that were taken so far."""

    def __init__(self, read: Read, name: str, damage: DamageLog) -> None:
        """Keep how to read the file, its name for people, and where losses are reported."""
        self.chunks: list[Chunk] = []
        self.connections: dict[int, Topic] = {}
        self.positions = array("q")  # of each message: index into `chunks`, then its Place
        self._read = read
        self._name = name
        self._damage = damage

    def take(self, chunk: Chunk) -> None:
        """Find what is in a chunk, or in a part of the file taken for an uncompressed one.

        A message whose length is wrong is found too: its load will tell.
        """
        self.chunks.append(chunk)
        ordinal = len(self.chunks) - 1
        try:
            read, end = chunk_reader(self._read, chunk)
        except FrameError as error:
            self._lose(error.reason, chunk, 0)
            return
        if is_beyond(chunk, end):
            beyond = too_large_chunk(f"{self._name} at byte {chunk.data}", chunk.unpacked)
            self._damage.add(beyond.reason, str(beyond))
        kinds = self._kinds(read, end)
        # Where there is no record, the next one is searched from behind the header of the last
        # good one, whose length may be what is wrong. `retry` only grows, so this ends.
        at = retry = 0
        while at < end:
            try:
                record = read_record(read, at)
            except FrameError as error:
                following = find_record(read, retry, end, kinds)
                self._lose(error.reason if following is None else "damaged file", chunk, at)
                retry = at = end if following is None else following
                continue
            retry = record.data
            if record.op == MESSAGE:
                stamp_ns, connection = record.time_ns(b"time"), record.number(b"conn")
                self.positions.extend((ordinal, stamp_ns, connection, at))
            elif record.op == CONNECTION:
                self._connect(read, record)
            elif record.op == CHUNK and chunk.compression == b"none":
                kinds = _searchable(record)
                if kinds is _EVERYTHING:
                    at = record.data
                    continue
                self._compressed(record, chunk, end)
            at = record.end if record.end <= end else self._behind(read, record, chunk, end, kinds)

    def _kinds(self, read: Read, end: int) -> tuple[int, ...]:
        """Return what to search for before the first chunk; see _searchable."""
        first = find_record(read, 0, end, (CHUNK,))
        return _EVERYTHING if first is None else _searchable(read_record(read, first))

    def _behind(
        self, read: Read, record: Record, chunk: Chunk, end: int, kinds: tuple[int, ...]
    ) -> int:
        """Return where to continue after a record that claims more than there is."""
        following = find_record(read, record.data, end, kinds)
        if record.op not in (MESSAGE, CHUNK):
            self._lose("cut file" if following is None else "damaged file", chunk, record.data)
        return end if following is None else following

    def _compressed(self, record: Record, around: Chunk, end: int) -> None:
        chunk = chunk_of(record, end)
        self.take(chunk._replace(data=around.data + chunk.data))

    def _connect(self, read: Read, record: Record) -> None:
        topic = read_connection(read, record)
        if topic is not None:
            self.connections.setdefault(record.number(b"conn"), topic)

    def _lose(self, reason: str, chunk: Chunk, at: int) -> None:
        begin = chunk.data + (at if chunk.compression == b"none" else 0)
        self._damage.add(reason, f"{self._name} at byte {begin}")


def _searchable(chunk: Record) -> tuple[int, ...]:
    """Return which records may be searched behind a chunk.

    Compressed data may hold the beginning of a message as it was and the rest changed, so what
    looks like a message in them is none.
    """
    return _EVERYTHING if chunk.fields[b"compression"] == b"none" else (CHUNK,)


def read_connection(read: Read, record: Record) -> Topic | None:
    """Return what a connection record declares; None if it cannot be read."""
    size = record.end - record.data
    if size > _LONGEST_DEFINITION:
        return None
    try:
        fields = read_fields(read(record.data, size))
    except FrameError:
        return None
    kind = fields.get(b"type", b"").decode(errors="replace").replace("/msg/", "/")
    definition = fields.get(b"message_definition", b"").decode(errors="replace")
    name = record.fields[b"topic"].decode(errors="replace")
    return Topic(name, kind, "ros1", definition, 0) if kind else None
