"""One row of a rosbag2 table of messages, found in its page without reading the message."""

import struct
from typing import NamedTuple

from edge_agent.data.storage.sqlite.rows import INTEGER_SIZES, ONE, ZERO, local_size, varint
from fleet_model.errors import FrameError

_LONGEST_HEADER = 13  # its own size, three types, a varint of up to nine bytes


class MessageRow(NamedTuple):
    """Where a message is."""

    rowid: int
    topic_id: int
    stamp_ns: int
    begin: int  # of the message in its page
    end: int  # of what the page holds of it
    size: int  # of the whole message
    overflow: int  # the page that the rest begins at; 0: there is none


class _Layout(NamedTuple):
    """What the first bytes of a row, up to the message's size, tell."""

    topic_size: int  # bytes
    topic_id: int  # where topic_size is 0
    stamp_size: int
    stamp_ns: int  # where stamp_size is 0


_layouts: dict[bytes, _Layout] = {}  # by those bytes; at most 10 x 8 x 8 are kept


def read_message_row(page: bytes, at: int, usable: int) -> MessageRow:
    """Return the row at offset `at`; raises FrameError if it cannot be a message.

    The table has the columns id (empty: it is the row id), topic_id, timestamp, data; so a row is
    its size, its id, four sizes and the content. Files have millions: 3 us each.
    """
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
    return MessageRow(rowid, topic_id, stamp_ns, begin, end, size, overflow)


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
