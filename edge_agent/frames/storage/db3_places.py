"""Find where every message of a rosbag2 SQLite file is, with the table's tree or without it."""

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.frames.damage import DamageLog
from edge_agent.frames.storage.db3_columns import read_message_rows
from edge_agent.frames.storage.db3_schema import Schema
from edge_agent.frames.storage.sqlite_pages import Pages
from edge_agent.frames.storage.sqlite_rows import (
    Lost,
    count_index_entries,
    leaf_pages,
    orphan_leaves,
)

_Numbers = NDArray[np.int64]

_SMALLEST_ROW = 16  # bytes, with its share of the page's header
_BYTES_AT_ONCE = 2**20  # of pages


class Place(NamedTuple):
    """Where a message is; a row of the table that `find_places` returns."""

    stamp_ns: int
    rowid: int
    page: int
    offset: int  # of the row in its page
    topic: int  # index into the schema's topics
    overflow: int  # page that the message goes on at; 0: none; -1: another message claims it too


_STAMP, _ROWID, _PAGE, _OFFSET, TOPIC, OVERFLOW = range(6)  # the columns of that table


def find_places(pages: Pages, schema: Schema, damage: DamageLog) -> _Numbers:
    """Return the Places (messages, 6) by time, those of equal time by row id.

    What cannot be found any more is added to `damage`: counted by row id, which recorders give
    without gaps; by place where the ids are unknown.
    """
    lost: list[Lost] = []
    bad_rows = DamageLog()
    seen = bytearray(pages.count + 1)
    if schema.messages_root:
        tree = leaf_pages(pages, schema.messages_root, lost, seen)
        found = _read(pages, schema, tree, bad_rows)
        cells = found[:, _PAGE] << 16 | found[:, _OFFSET]
        found = found[np.unique(cells, return_index=True)[1]]
    else:
        found = np.empty((0, 6), np.int64)
        lost.append(Lost(1, 0, None, "damaged file"))
    indexed = count_index_entries(pages, schema.index_root) if schema.index_root else None
    if lost or bad_rows or indexed not in (None, len(found)):
        # A page outside the tree may be of any table, so a row that is no message means nothing.
        more = _read(pages, schema, orphan_leaves(pages, seen), DamageLog())
        more = more[~np.isin(more[:, _ROWID], found[:, _ROWID])]
        more = more[np.unique(more[:, _ROWID], return_index=True)[1]]
        found = np.concatenate([found, more])
    if not (lost or bad_rows) and indexed not in (None, len(found)):
        damage.add("damaged file", f"{pages.place(schema.index_root)}: counts {indexed} messages")
    for loss in bad_rows.all():
        damage.add(loss.kind, loss.begins, loss.count)
    _count(lost, np.sort(found[:, _ROWID]), pages, damage)
    _mark_shared(found)
    return found[np.lexsort((found[:, _ROWID], found[:, _STAMP]))]


def _read(
    pages: Pages, schema: Schema, leaves: Iterable[tuple[int, bytes]], damage: DamageLog
) -> _Numbers:
    """Return the Places of the messages in leaf pages; what is none is added to `damage`."""
    ids = np.array(sorted(schema.topic_ids), np.int64)
    topics = np.array([schema.topic_ids[i] for i in ids.tolist()], np.int64)
    parts = [np.empty((0, 6), np.int64)]
    leaves = iter(leaves)
    while batch := list(islice(leaves, max(1, _BYTES_AT_ONCE // pages.page_size))):
        numbers = np.array([number for number, _ in batch])
        rows, damaged = read_message_rows([page for _, page in batch], pages.usable)
        known = np.isin(rows[:, TOPIC], ids)
        damaged += np.bincount(rows[~known, _PAGE], minlength=len(batch))
        rows = rows[known]
        rows[:, TOPIC] = topics[np.searchsorted(ids, rows[:, TOPIC])]
        rows[:, _PAGE] = numbers[rows[:, _PAGE]]
        parts.append(rows)
        for i in np.flatnonzero(damaged).tolist():
            damage.add("damaged file", pages.place(batch[i][0]), int(damaged[i]))
    return np.concatenate(parts)


def _mark_shared(found: _Numbers) -> None:
    """Mark messages that go on at the same page: all but one are wrong, and nobody knows which."""
    pages, counts = np.unique(found[:, OVERFLOW], return_counts=True)
    shared = pages[(counts > 1) & (pages > 0)]
    found[np.isin(found[:, OVERFLOW], shared), OVERFLOW] = -1


def _count(lost: list[Lost], rowids: _Numbers, pages: Pages, damage: DamageLog) -> None:
    """Add what is lost: the row ids of the parts that are not among `rowids` after all."""
    most = pages.count * pages.page_size // _SMALLEST_ROW
    for part in lost:
        missing = 1
        if part.up_to is not None and 0 <= part.after < part.up_to < 2**62:
            first, last = np.searchsorted(rowids, [part.after, part.up_to], side="right")
            missing = part.up_to - part.after - int(last - first)
        damage.add(part.reason, pages.place(part.page), missing if 1 <= missing <= most else 1)
