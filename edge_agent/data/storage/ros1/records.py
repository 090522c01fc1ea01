"""The records of a ROS 1 bag: how they are read, and found again behind a damaged place.

A record is a header of named fields, then data; both begin with their length.
http://wiki.ros.org/Bags/Format/2.0
"""

import struct
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, TypeAlias

from fleet_model.errors import FrameError
from fleet_model.types import NS_PER_S

Read: TypeAlias = Callable[[int, int], bytes]  # (offset, size) -> bytes; fewer at the end

MESSAGE, BAG_HEADER, INDEX, CHUNK, CHUNK_INFO, CONNECTION = 2, 3, 4, 5, 6, 7
COMPRESSIONS = (b"none", b"bz2", b"lz4")

_u32 = struct.Struct("<I").unpack_from
_FIRST_READ = 160  # most headers have less
_LONGEST_HEADER = 2**16
# Fields that every record of a kind must have, with their sizes; 0 is any.
_FIELDS = {
    MESSAGE: {b"conn": 4, b"time": 8},
    BAG_HEADER: {b"index_pos": 8, b"conn_count": 4, b"chunk_count": 4},
    INDEX: {b"ver": 4, b"conn": 4, b"count": 4},
    CHUNK: {b"compression": 0, b"size": 4},
    CHUNK_INFO: {b"ver": 4, b"chunk_pos": 8, b"start_time": 8, b"end_time": 8, b"count": 4},
    CONNECTION: {b"conn": 4, b"topic": 0},
}
_OP_FIELD = b"\x04\0\0\0op="
# What lies between the begin of a record and its op field: the header's length, then the fields
# that writers put before it. roscpp sorts them by name; others begin with op.
_BEFORE_OP = (4, 4 + 13, 4 + 16 + len("bz2"), 4 + 16 + len("none"))
_SEARCH_BLOCK = 2**20


class Record(NamedTuple):
    """One record: its fields; its data is not read yet."""

    op: int
    fields: Mapping[bytes, bytes]
    data: int  # where its data begin
    end: int  # where they end, by its own account

    def number(self, name: bytes) -> int:
        """Return an unsigned number."""
        return int.from_bytes(self.fields[name], "little")

    def time_ns(self, name: bytes) -> int:
        """Return a time as nanoseconds since the Unix epoch."""
        return time_ns(self.fields[name])


def time_ns(field: bytes) -> int:
    """Return a ROS 1 time: seconds, nanoseconds."""
    seconds, nanoseconds = struct.unpack("<II", field)
    return int(seconds) * NS_PER_S + int(nanoseconds)


def read_record(read: Read, at: int) -> Record:
    """Return the record at `at`; raises FrameError if there is none.

    Its data may reach over the end of what can be read.
    """
    start = read(at, _FIRST_READ)
    if len(start) < 4:
        raise FrameError("a record without a length", "cut file")
    (size,) = _u32(start)
    if size > _LONGEST_HEADER:
        raise FrameError("a header too long to be one", "damaged file")
    if size + 8 > len(start):
        start = read(at, size + 8)
        if size + 8 > len(start):
            raise FrameError("a record that was cut", "cut file")
    fields = read_fields(start[4 : 4 + size])
    op = fields.get(b"op", b"")
    needed = _FIELDS.get(op[0]) if len(op) == 1 else None
    if needed is None:
        raise FrameError("a record of no known kind", "damaged file")
    for name, length in needed.items():
        if name not in fields or length not in (0, len(fields[name])):
            raise FrameError(f"a record without its field {name.decode()}", "damaged file")
    begin = at + size + 8
    return Record(op[0], fields, begin, begin + int(_u32(start, 4 + size)[0]))


def read_fields(header: bytes) -> dict[bytes, bytes]:
    """Return the fields of a header by name; raises FrameError."""
    fields, at = {}, 0
    while at < len(header):
        if at + 4 > len(header):
            raise FrameError("a field without a length", "damaged file")
        end = at + 4 + int(_u32(header, at)[0])
        name, separator, value = header[at + 4 : end].partition(b"=")
        if end > len(header) or not separator:
            raise FrameError("a field that does not end", "damaged file")
        fields[name] = value
        at = end
    return fields


def find_record(read: Read, at: int, end: int, kinds: Collection[int]) -> int | None:
    """Return where the next record of `kinds` (message, chunk, connection) begins from `at` on."""
    block = at
    while block < end:
        data = read(block, min(_SEARCH_BLOCK, end - block))
        hit = data.find(_OP_FIELD)
        while hit >= 0:
            for before in _BEFORE_OP:
                begin = block + hit - before
                if begin >= at and _is_record(read, begin, kinds):
                    return begin
            hit = data.find(_OP_FIELD, hit + 1)
        if len(data) <= len(_OP_FIELD):
            return None
        block += len(data) - len(_OP_FIELD) + 1
    return None


def _is_record(read: Read, at: int, kinds: Collection[int]) -> bool:
    try:
        record = read_record(read, at)
    except FrameError:
        return False
    if record.op == CHUNK and record.fields[b"compression"] not in COMPRESSIONS:
        return False
    return record.op in kinds
