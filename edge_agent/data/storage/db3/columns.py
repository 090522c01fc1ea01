"""The rows of many pages of messages at once: a bag with other sensors has millions.

Reads exactly what db3_rows reads one by one, in a tenth of the time; rows of unusual shape are
left to it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_agent.data.storage.db3.rows import USUAL, Columns, read_message_row
from edge_agent.data.storage.sqlite.rows import ONE, ZERO, adds_up
from fleet_model.errors import FrameError

_Numbers = NDArray[np.int64]

_BEHIND = 64  # bytes; the first part of a row, up to the message, is shorter
_ONE_BYTE, _EIGHT_BYTES = 1, 6  # serial types
_PAGE_HEADER = 8


def read_message_rows(
    pages: Sequence[bytes], usable: int, columns: Columns = USUAL
) -> tuple[_Numbers, _Numbers]:
    """Read the rows of leaf pages of equal size.

    Returns:
        (rows, 6): stamp in ns, row id, index into `pages`, offset in the page, topic id, first
        overflow page or 0.
        (pages,): how many rows of each page are damaged; 1 where rows are missing, nobody knows
        how many.
    """
    size = len(pages[0])
    flat = np.frombuffer(b"".join([*pages, bytes(_BEHIND)]), np.uint8)
    page, offset, damaged = _cells(flat, len(pages), size)
    inside = offset < usable
    base = page * size
    payload, at = _varints(flat, base + np.where(inside, offset, 0))
    rowid, at = _varints(flat, at)
    header, marker, topic, stamp = (flat[at + i].astype(np.int64) for i in range(4))
    kind, content = _varints(flat, at + 4)
    stamp_at = content + (topic == _ONE_BYTE)
    message = stamp_at + 8
    local = _local_sizes(payload, usable)
    usual = (
        inside
        & (columns == USUAL)
        & (marker == 0)
        & ((topic == _ONE_BYTE) | (topic == ZERO) | (topic == ONE))
        & (stamp == _EIGHT_BYTES)
        & (kind >= 12)
        & (kind % 2 == 0)
        & (at + header == content)
        & (at + payload == message + (kind - 12) // 2)
        & (message <= at + local)
        & (at + local <= base + usable)
        & (at + local + 4 * (local < payload) <= base + size)
    )
    stamps_ns = flat[stamp_at[:, None] + np.arange(8)].view(">i8")[:, 0]
    topic_id = np.where(topic == _ONE_BYTE, flat[content].view(np.int8), topic - ZERO)
    link_at = np.where(usual & (local < payload), at + local, len(flat) - 4)  # else at zeros
    overflow = flat[link_at[:, None] + np.arange(4)].view(">u4")[:, 0]
    rows = np.stack([stamps_ns, rowid, page, offset, topic_id, overflow], axis=1)
    sizes = at + local + 4 * (local < payload) - base - offset
    for i in np.flatnonzero(~usual).tolist():
        try:
            row = read_message_row(pages[page[i]], int(offset[i]), usable, columns)
        except FrameError:
            damaged[page[i]] += 1
        else:
            rows[i] = row.stamp_ns, row.rowid, page[i], offset[i], row.topic_id, row.overflow
            sizes[i] = row.end + 4 * bool(row.overflow) - offset[i]
            usual[i] = True
    taken = np.bincount(page, sizes * usual, len(pages)).astype(np.int64)
    for i, filled in enumerate(taken.tolist()):
        if not damaged[i] and not adds_up(pages[i], 0, filled, usable):
            damaged[i] = 1
    return rows[usual], damaged


def _cells(flat: NDArray[np.uint8], pages: int, size: int) -> tuple[_Numbers, _Numbers, _Numbers]:
    """Return (page, offset) of every row, and (pages,) whether a page claims too many."""
    begins = np.arange(pages) * size
    counts = flat[begins + 3].astype(np.int64) << 8 | flat[begins + 4]
    damaged = (counts * 2 + _PAGE_HEADER > size).astype(np.int64)
    counts[damaged > 0] = 0
    page = np.repeat(np.arange(pages), counts)
    number = np.arange(len(page)) - np.repeat(np.cumsum(counts) - counts, counts)
    at = page * size + _PAGE_HEADER + 2 * number
    return page, flat[at].astype(np.int64) << 8 | flat[at + 1], damaged


def _varints(flat: NDArray[np.uint8], at: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Return the variable-length integers at `at`, and the offsets behind them.

    Those of nine bytes come out as -1: no length and no row id of a recorder is as large.
    """
    values = flat[at].astype(np.int64)
    going_on = np.flatnonzero(values >= 0x80)
    values &= 0x7F
    at = at + 1
    for _ in range(7):
        byte = flat[at[going_on]]
        values[going_on] = values[going_on] << 7 | byte & 0x7F
        at[going_on] += 1
        going_on = going_on[byte >= 0x80]
    values[going_on] = -1
    return values, at


def _local_sizes(payload: _Numbers, usable: int) -> _Numbers:
    """Return how much of each row is kept in its page, as local_size does."""
    least = (usable - 12) * 32 // 255 - 23
    size = least + (payload - least) % (usable - 4)
    size = np.where(size <= usable - 35, size, least)
    return np.where(payload <= usable - 35, payload, size)
