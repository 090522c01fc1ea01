"""The index of a ROS 1 bag: which chunks there are, and where in them which messages are."""

import struct
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.data.storage import Topic
from edge_agent.data.storage.ros1.chunk import Chunk, chunk_of
from edge_agent.data.storage.ros1.records import (
    CHUNK,
    CHUNK_INFO,
    CONNECTION,
    INDEX,
    Read,
    Record,
    read_record,
)
from edge_agent.data.storage.ros1.scan import read_connection
from fleet_model.errors import FrameError
from fleet_model.types import NS_PER_S

_ENTRY_SIZE = 12  # seconds, nanoseconds, offset


class ChunkInfo(NamedTuple):
    """What the index says of a chunk."""

    begin: int  # of its record
    end: int  # where the next chunk begins, or the index
    start_ns: int
    end_ns: int
    counts: dict[int, int]  # messages by connection


class Index(NamedTuple):
    """The index at the end of a bag."""

    chunks: list[ChunkInfo]  # in the order of their first message
    connections: dict[int, Topic]
    counts: Counter[int]  # messages by connection


def read_index(read: Read, header: Record, size: int) -> Index:
    """Read the index of a file of `size` bytes; raises FrameError if it is not whole."""
    begin = header.number(b"index_pos")
    if not header.end <= begin <= size:
        raise FrameError("there is no index", "cut file")
    chunks: list[ChunkInfo] = []
    connections: dict[int, Topic] = {}
    at = begin
    while at < size:
        record = read_record(read, at)
        if record.end > size:
            raise FrameError("the index was cut", "cut file")
        if record.op == CONNECTION:
            topic = read_connection(read, record)
            if topic is None:
                raise FrameError("a connection without a type", "damaged file")
            connections[record.number(b"conn")] = topic
        elif record.op == CHUNK_INFO:
            chunks.append(_chunk_info(read, record))
        at = record.end
    begins = sorted(chunk.begin for chunk in chunks)
    ends = dict(zip(begins, [*begins[1:], begin], strict=False))
    chunks = [chunk._replace(end=ends[chunk.begin]) for chunk in chunks]
    if (
        len(chunks) != header.number(b"chunk_count")
        or len(connections) != header.number(b"conn_count")
        or any(chunk.begin >= chunk.end for chunk in chunks)
    ):
        raise FrameError("the index contradicts itself", "damaged file")
    counts = Counter[int]()
    for chunk in chunks:
        counts.update(chunk.counts)
    if not counts.keys() <= connections.keys():
        raise FrameError("the index has messages of no connection", "damaged file")
    return Index(sorted(chunks, key=lambda c: (c.start_ns, c.begin)), connections, counts)


def find_chunk(read: Read, info: ChunkInfo) -> tuple[Chunk, int]:
    """Return the chunk, and where its record ends; raises FrameError if it is not there."""
    record = read_record(read, info.begin)
    if record.op != CHUNK or record.end > info.end:
        raise FrameError("no chunk where the index has one", "damaged file")
    return chunk_of(record, record.end), record.end


def read_positions(
    read: Read, info: ChunkInfo, at: int, wanted: Collection[int]
) -> NDArray[np.int64]:
    """Return the places of the wanted connections' messages in one chunk.

    Args:
        read: the file.
        info: what has to be there.
        at: where the chunk's own index begins, behind the chunk.
        wanted: connections.

    Returns:
        (messages, 3) of Position, as they lie in the chunk.

    Raises:
        FrameError: the chunk's own index is not what `info` says.
    """
    parts = [np.empty((0, 3), np.int64)]
    missing = set(info.counts)
    while missing:
        record = read_record(read, at)
        connection = record.number(b"conn") if record.op == INDEX else -1
        if connection not in missing:
            raise FrameError("the index of a chunk is missing", "damaged file")
        missing.remove(connection)
        count = info.counts[connection]
        if record.end - record.data != count * _ENTRY_SIZE or record.end > info.end:
            raise FrameError("the index of a chunk has another length", "damaged file")
        if connection in wanted:
            parts.append(_entries(read(record.data, count * _ENTRY_SIZE), connection))
        at = record.end
    positions = np.concatenate(parts)
    stamps, offsets = positions[:, 0], positions[:, 2]
    if (
        len(np.unique(offsets)) != len(offsets)
        or stamps.min(initial=info.start_ns) < info.start_ns
        or stamps.max(initial=info.end_ns) > info.end_ns
    ):
        raise FrameError("the index of a chunk contradicts itself", "damaged file")
    return positions[np.argsort(offsets)]


def _entries(data: bytes, connection: int) -> NDArray[np.int64]:
    if len(data) % _ENTRY_SIZE:
        raise FrameError("the index of a chunk was cut", "cut file")
    seconds, nanoseconds, offsets = np.frombuffer(data, "<u4").reshape(-1, 3).T.astype(np.int64)
    stamps_ns = seconds * NS_PER_S + nanoseconds
    return np.stack([stamps_ns, np.full_like(offsets, connection), offsets], axis=1)


def _chunk_info(read: Read, record: Record) -> ChunkInfo:
    count = record.number(b"count")
    data = read(record.data, record.end - record.data)
    counts = dict(struct.iter_unpack("<II", data[: len(data) // 8 * 8]))
    if len(data) != 8 * count or len(counts) != count:
        raise FrameError("a chunk's counts contradict themselves", "damaged file")
    return ChunkInfo(
        record.number(b"chunk_pos"),
        0,
        record.time_ns(b"start_time"),
        record.time_ns(b"end_time"),
        counts,
    )
