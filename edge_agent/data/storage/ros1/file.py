"""Messages of a ROS 1 bag (.bag, version 2.0), with its index or without, whole or damaged."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.data.storage import Stored, Topic
from edge_agent.data.storage.in_order import Batch, in_blocks, in_order
from edge_agent.data.storage.kept import Kept
from edge_agent.data.storage.ros1.chunk import Chunk, Position
from edge_agent.data.storage.ros1.content import Content
from edge_agent.data.storage.ros1.index import (
    ChunkInfo,
    Index,
    find_chunk,
    read_index,
    read_positions,
)
from edge_agent.data.storage.ros1.records import BAG_HEADER, read_record
from edge_agent.data.storage.ros1.scan import Scan
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

_MAGIC = b"#ROSBAG V2.0\n"
_TIME_COLUMN = Position._fields.index("stamp_ns")


class Ros1File:
    """An open .bag file; see StorageFile. Topics have the encoding "ros1"."""

    def __init__(self, path: Path) -> None:
        """Open the file; raises FrameError if it has neither an index nor a connection."""
        self.path = path
        self._name = path.name
        self._damage = DamageLog()
        self._fd = -1
        self._index: Index | None = None
        self._scan: Scan | None = None
        self._contents = Kept[Chunk, Content]()
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._size = os.fstat(self._fd).st_size
            self._open()
        except OSError as error:
            self.__exit__()
            raise FrameError(f"{self._name}: {error.strerror}; may you read it?") from None
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "Ros1File":
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def topics(self) -> Sequence[Topic]:
        """Return every topic; those of several connections once, with all their messages."""
        connections, counts = self._connections()
        totals = Counter[Topic]()
        for connection, topic in connections.items():
            totals[topic] += counts[connection]
        return [topic._replace(messages=count) for topic, count in totals.items()]

    def messages(self, topics: Collection[str], damage: DamageLog) -> Iterator[Stored]:
        """Yield the messages of topics by time; see StorageFile."""
        for loss in self._damage.all():
            damage.add(loss.kind, loss.begins, loss.count)
        declared = {topic._replace(messages=0): topic for topic in self.topics()}
        connections, _ = self._connections()
        wanted = {i: declared[t] for i, t in connections.items() if t.name in topics}
        yield from in_order(self._batches(wanted, damage))

    def _batches(self, wanted: dict[int, Topic], damage: DamageLog) -> Iterator[Batch]:
        """Yield what a scan found, or chunk by chunk what the index says."""
        if self._scan is not None:
            yield 0, self._scanned(self._scan, wanted)
            return
        assert self._index is not None
        for info in self._index.chunks:
            if wanted.keys().isdisjoint(info.counts):
                continue
            try:
                chunk, end = find_chunk(self._read, info)
                positions = read_positions(self._read, info, end, wanted)
            except FrameError as error:
                damage.add(error.reason, self._where(info.begin))
                yield info.start_ns, self._scanned(self._scan_of(info, damage), wanted)
            else:
                places = np.insert(positions, 0, 0, axis=1)
                yield info.start_ns, self._stored([chunk], places, wanted)

    def _stored(
        self, chunks: Sequence[Chunk], places: NDArray[np.int64], wanted: dict[int, Topic]
    ) -> Iterator[Stored]:
        """Yield the messages at `places`, rows as in Scan.positions."""
        for ordinal, *fields in in_blocks(places, 1 + _TIME_COLUMN):
            position = Position(*fields)
            load = partial(self._load, chunks[ordinal], position)
            yield Stored(position.stamp_ns, wanted[position.connection], load)

    def _open(self) -> None:
        """Read the index; without one, all records."""
        start = self._read(0, len(_MAGIC))
        try:
            header = read_record(self._read, len(_MAGIC))
            if start != _MAGIC or header.op != BAG_HEADER:
                raise FrameError("no bag header", "damaged file")
            if header.fields.get(b"encryptor", b"") not in (b"", b"rosbag/NoEncryptor"):
                raise FrameError(f"{self._name}: is encrypted; decrypt it first", "encrypted")
            self._index = read_index(self._read, header, self._size)
        except FrameError as error:
            if error.reason == "encrypted":
                raise
            self._damage.add(error.reason, self._where(self._size))
            self._scan = Scan(self._read, self._name, self._damage)
            begin = len(_MAGIC) if start == _MAGIC else 0
            self._scan.take(Chunk(begin, self._size - begin, b"none", whole=False))
            if not self._scan.connections:
                raise FrameError(
                    f"{self._name}: holds no topic; {_advice(start)}", error.reason
                ) from None

    def _connections(self) -> tuple[dict[int, Topic], Counter[int]]:
        if self._index is not None:
            return self._index.connections, self._index.counts
        assert self._scan is not None
        found = np.array(self._scan.positions, np.int64).reshape(-1, 4)
        return self._scan.connections, Counter(found[:, 2].tolist())

    def _scanned(self, scan: Scan, wanted: dict[int, Topic]) -> Iterator[Stored]:
        found = np.array(scan.positions, np.int64).reshape(-1, 4)
        return self._stored(scan.chunks, found[np.isin(found[:, 2], list(wanted))], wanted)

    def _scan_of(self, info: ChunkInfo, damage: DamageLog) -> Scan:
        """Find the messages of a chunk whose index is wrong."""
        scan = Scan(self._read, self._name, damage)
        scan.take(Chunk(info.begin, info.end - info.begin, b"none"))
        return scan

    def _load(self, chunk: Chunk, position: Position) -> bytes:
        return self._contents.get(chunk, self._content).message(position)

    def _content(self, chunk: Chunk) -> tuple[Content, int]:
        content = Content(self._read, chunk, self._name)
        return content, content.held_bytes

    def _read(self, at: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, at)
        except OSError as error:
            raise FrameError(f"{self._where(at)}: {error.strerror}") from None

    def _where(self, at: int) -> str:
        return f"{self._name} at byte {at}"


def _advice(start: bytes) -> str:
    if start == _MAGIC:
        return "it ends too early"
    version = start.removeprefix(b"#ROSBAG V")
    if version == start:
        return "is it a ROS 1 bag?"
    return f"it has version {version[:3].decode(errors='replace')}, expected 2.0: run `rosbag fix`"
