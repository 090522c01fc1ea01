"""One row of a rosbag2 table of messages, found in its page without reading the message."""

import struct
from typing import NamedTuple

from edge_agent.data.storage.sqlite.rows import (
    INTEGER_SIZES,
    ONE,
    ZERO,
    local_size,
    read_cell,
    size_of,
    varint,
)
from fleet_model.errors import FrameError

_LONGEST_HEADER = 13  # its own size, three types, a varint of up to nine bytes


class Columns(NamedTuple):
    """Which columns of the table hold what."""

    topic_id: int = 1
    timestamp: int = 2
    data: int = 3
    total: int = 4  # of columns
    is_id_empty: bool = True  # the column id is there, and stands for the row id


USUAL = Columns()  # of every version of rosbag2: id, topic_id, timestamp, data


class MessageRow(NamedTuple):
    """Where a message is."""

    rowid: int
    topic_id: int
    stamp_ns: int
    begin: int  # of the message in its page
    end: int  # of what the page holds of the row
    size: int  # of the message
    rest: int  # from its begin to the row's end; the message is the first of these bytes
    overflow: int  # the page that the rest begins at; 0: there is none


class _Layout(NamedTuple):
    """What the first bytes of a row, up to the message's size, tell."""

    topic_size: int  # bytes
    topic_id: int  # where topic_size is 0
    stamp_size: int
    stamp_ns: int  # where stamp_size is 0


_layouts: dict[bytes, _Layout] = {}  # by those bytes; at most 10 x 8 x 8 are kept


def read_message_row(page: bytes, at: int, usable: int, columns: Columns = USUAL) -> MessageRow:
    """Return the row at offset `at`; raises FrameError if it cannot be a message.

    A row of the usual table is its size, its id, four sizes and the content. Files have millions:
    3 us each.
    """
    if columns != USUAL:
        return _unusual_row(page, at, usable, columns)
    try:
        payload, at = varint(page, at)
        rowid, at = varint(page, at)
        start = page[at : at + 4]
        layout = _layouts.get(start) or _new_layout(start)
        kind, content = varint(page, at + 4)
        stamp = content + layout.topic_size
        begin = stamp + layout.stamp_size
        size = (kind - 12) // 2
        local = payload if payload <= usable - 35 else local_size(payload, usable)
        end = at + local
        overflow = 0
        if local < payload:
            (overflow,) = struct.unpack_from(">I", page, end)
    except (IndexError, struct.error):
        raise FrameError("a row leads out of its page", "damaged file") from None
    fits = at + start[0] == content and at + payload == begin + size and begin <= end <= usable
    if not fits or kind < 12 or kind & 1:
        raise FrameError("a row does not add up", "damaged file")
    topic_id = layout.topic_id
    if layout.topic_size:
        topic_id = int.from_bytes(page[content:stamp], "big", signed=True)
    stamp_ns = layout.stamp_ns
    if layout.stamp_size:
        stamp_ns = int.from_bytes(page[stamp:begin], "big", signed=True)
    return MessageRow(rowid, topic_id, stamp_ns, begin, end, size, size, overflow)


def _unusual_row(page: bytes, at: int, usable: int, columns: Columns) -> MessageRow:
    """Return the row of a table that other programs wrote or added columns to.

    A row has fewer columns than the table where some were added later.
    """
    cell = read_cell(page, at, usable)
    topic, stamp, data = columns.topic_id, columns.timestamp, columns.data
    if not max(topic, stamp, data) < len(cell.types) <= columns.total:
        raise FrameError("a row with too few or too many columns", "damaged file")
    begins = [0]
    for kind in cell.types:
        begins.append(begins[-1] + size_of(kind))

    def number(column: int) -> int:
        kind, begin, end = cell.types[column], begins[column], begins[column + 1]
        if kind not in (ZERO, ONE, *INTEGER_SIZES) or end > len(cell.local):
            raise FrameError("a row of other types", "damaged file")
        stored = int.from_bytes(cell.local[begin:end], "big", signed=True)
        return stored if end > begin else kind - ZERO

    kind, begin, end = cell.types[data], begins[data], begins[data + 1]
    if kind < 12 or kind & 1 or begin > len(cell.local):
        raise FrameError("a row of other types", "damaged file")
    return MessageRow(
        cell.rowid,
        number(topic),
        number(stamp),
        cell.begin + begin,
        cell.begin + len(cell.local),
        end - begin,
        cell.size - begin,
        cell.overflow,
    )


def _new_layout(start: bytes) -> _Layout:
    if len(start) < 4 or start[1] != 0:
        raise FrameError("a row without an id of its own", "damaged file")
    _, _, topic, stamp = start
    integers = {ZERO: 0, ONE: 0} | INTEGER_SIZES
    if topic not in integers or stamp not in integers:
        raise FrameError("a row of other types", "damaged file")
    layout = _Layout(integers[topic], topic - ZERO, integers[stamp], stamp - ZERO)
    if start[0] <= _LONGEST_HEADER:
        _layouts[start] = layout
    return layout
