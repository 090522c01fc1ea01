"""Find where every message of a rosbag2 SQLite file is, with the table's tree or without it.

A bag with other sensors has millions of small messages, so the places of wanted topics are kept,
of others while they are few; the rest is counted page by page, and found in another pass if it is
wanted later. Only a damaged file needs the row ids of all at once.
"""

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.data.storage.db3.columns import read_message_rows
from edge_agent.data.storage.db3.schema import Schema
from edge_agent.data.storage.sqlite.pages import Pages
from edge_agent.data.storage.sqlite.rows import (
    Lost,
    count_index_entries,
    leaf_pages,
    orphan_leaves,
)
from fleet_model.files.damage import DamageLog

_Numbers = NDArray[np.int64]
_Rows = NDArray[np.void]  # of type _ROW

_SMALLEST_ROW = 16  # bytes, with its share of the page's header
_BYTES_AT_ONCE = 2**20  # of pages
_SPARE_BYTES = 2**21  # of places that nobody asked for yet: 40 minutes of a camera at 30 Hz


class Position(NamedTuple):
    """Where a message is; a row of `Places.rows`."""

    stamp_ns: int
    rowid: int
    page: int
    offset: int  # of the row in its page
    topic: int  # index into the schema's topics, of which there are fewer than 2**16
    overflow: int  # page that the message continues on; 0: none


_ROW = np.dtype(list(zip(Position._fields, ("i8", "i8", "u4", "u2", "u2", "u4"), strict=True)))
_PAGE, _TOPIC = map(Position._fields.index, ("page", "topic"))


class Positions(NamedTuple):
    """What one pass over the file finds."""

    rows: _Rows  # (messages of `topics`,) by time, those of equal time by row id
    topics: frozenset[int]  # by index: those that were wanted, and others
    counts: _Numbers  # (topics,) messages of each topic of the file
    starts: _Numbers  # the pages that one message each, of any topic, continues on; in order
    # Those that several messages claim: all but one are wrong, and nobody knows which.
    shared: frozenset[int]


def find_positions(
    pages: Pages, schema: Schema, wanted: Collection[int], damage: DamageLog
) -> Positions:
    """Return the places of the wanted topics (by index), and what is to be known of the others.

    What cannot be found any more is added to `damage`: counted by row id, which recorders give
    without gaps; by place where the ids are unknown.
    """
    lost: list[Lost] = []
    bad_rows = DamageLog()
    seen = bytearray(pages.count + 1)
    found = _Found(len(schema.topics), wanted)
    for rows in _tree(pages, schema, lost, bad_rows, seen):
        found.add(rows)
    indexed = count_index_entries(pages, schema.index_root) if schema.index_root else None
    if lost or bad_rows or indexed not in (None, found.count):
        known = _row_ids(_tree(pages, schema, [], DamageLog(), bytearray(len(seen))))
        # A page outside the tree may be of any table, so a row that is no message means nothing.
        more = _joined(_read(pages, schema, orphan_leaves(pages, seen), DamageLog()))
        more = more[~np.isin(more["rowid"], known)]
        more = more[np.unique(more["rowid"], return_index=True)[1]]
        found.add(more)
        if not (lost or bad_rows) and indexed not in (None, found.count):
            position = pages.position(schema.index_root)
            damage.add("damaged file", f"{position}: counts {indexed} messages")
        for loss in bad_rows.all():
            damage.add(loss.kind, loss.begins, loss.count)
        _count(lost, np.sort(np.concatenate([known, more["rowid"]])), pages, damage)
    return found.positions()


class _Found:
    """Collects rows of all topics, and keeps what `Places` holds."""

    def __init__(self, topics: int, wanted: Collection[int]) -> None:
        self._is_wanted = np.isin(np.arange(topics), list(wanted))
        self._is_kept = np.ones(topics, np.bool_)
        self._counts = np.zeros(topics, np.int64)
        self._rows, self._starts = bytearray(), bytearray()  # they grow in place

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    def add(self, rows: _Rows) -> None:
        topics, starts = rows["topic"], rows["overflow"]
        self._counts += np.bincount(topics, minlength=len(self._counts))
        self._starts += starts[starts > 0].astype(np.int64).tobytes()
        self._rows += rows[self._is_kept[topics]].tobytes()
        while len(self._rows) > _SPARE_BYTES and self._drop():
            pass

    def _drop(self) -> bool:
        """Drop the commonest topics that nobody wants; return whether there were any."""
        spare = self._is_kept & ~self._is_wanted
        if not spare.any():
            return False
        recorded = self._counts[spare & (self._counts > 0)]
        most = recorded.mean() if len(recorded) else 0  # else also those that are yet to come
        self._is_kept &= ~(spare & (self._counts >= most))
        rows = np.frombuffer(self._rows, _ROW)
        self._rows = bytearray(rows[self._is_kept[rows["topic"]]].tobytes())
        return True

    def positions(self) -> Positions:
        rows = np.frombuffer(self._rows, _ROW)
        if not _is_in_order(rows):
            rows = rows[np.lexsort((rows["rowid"], rows["stamp_ns"]))]
        starts, claims = np.unique(np.frombuffer(self._starts, np.int64), return_counts=True)
        shared = frozenset(starts[claims > 1].tolist())
        topics = frozenset(np.flatnonzero(self._is_kept).tolist())
        return Positions(rows, topics, self._counts, starts[claims == 1], shared)


def _is_in_order(rows: _Rows) -> bool:
    stamps, ids = rows["stamp_ns"], rows["rowid"]
    later = stamps[1:] > stamps[:-1]
    return bool(np.all(later | (stamps[1:] == stamps[:-1]) & (ids[1:] > ids[:-1])))


def _tree(
    pages: Pages, schema: Schema, lost: list[Lost], bad_rows: DamageLog, seen: bytearray
) -> Iterator[_Rows]:
    """Yield the messages of the table's own leaves, some pages at once; none comes twice."""
    if not schema.messages_root:
        lost.append(Lost(1, 0, None, "damaged file"))
        return
    tree = leaf_pages(pages, schema.messages_root, lost, seen)
    for rows in _read(pages, schema, tree, bad_rows):
        cells = rows["page"].astype(np.int64) << 16 | rows["offset"]
        ordered = np.sort(cells)
        if (ordered[1:] == ordered[:-1]).any():  # a page names a row twice; no page comes twice
            rows = rows[np.unique(cells, return_index=True)[1]]
        yield rows


def _read(
    pages: Pages, schema: Schema, leaves: Iterable[tuple[int, bytes]], damage: DamageLog
) -> Iterator[_Rows]:
    """Yield the messages in leaf pages, some pages at once; what is none is added to `damage`."""
    ids = np.array(sorted(schema.topic_ids), np.int64)
    topics = np.array([schema.topic_ids[i] for i in ids.tolist()], np.int64)
    leaves = iter(leaves)
    while batch := list(islice(leaves, max(1, _BYTES_AT_ONCE // pages.page_size))):
        numbers = np.array([number for number, _ in batch])
        read, damaged = read_message_rows([page for _, page in batch], pages.usable, schema.columns)
        known = np.isin(read[:, _TOPIC], ids)
        damaged += np.bincount(read[~known, _PAGE], minlength=len(batch))
        for i in np.flatnonzero(damaged).tolist():
            damage.add("damaged file", pages.position(batch[i][0]), int(damaged[i]))
        read = read[known]
        read[:, _TOPIC] = topics[np.searchsorted(ids, read[:, _TOPIC])]
        read[:, _PAGE] = numbers[read[:, _PAGE]]
        rows = np.empty(len(read), _ROW)
        for name, column in zip(Position._fields, read.T, strict=True):
            rows[name] = column
        yield rows


def _joined(parts: Iterable[_Rows]) -> _Rows:
    joined = bytearray()
    for rows in parts:
        joined += rows.tobytes()
    return np.frombuffer(joined, _ROW)


def _row_ids(parts: Iterable[_Rows]) -> _Numbers:
    joined = bytearray()
    for rows in parts:
        joined += rows["rowid"].tobytes()
    return np.frombuffer(joined, np.int64)


def _count(lost: list[Lost], rowids: _Numbers, pages: Pages, damage: DamageLog) -> None:
    """Add what is lost: the row ids of the parts that are not among `rowids` after all."""
    most = pages.count * pages.page_size // _SMALLEST_ROW
    for part in lost:
        missing = 1
        if part.up_to is not None and 0 <= part.after < part.up_to < 2**62:
            first, last = np.searchsorted(rowids, [part.after, part.up_to], side="right")
            missing = part.up_to - part.after - int(last - first)
        damage.add(part.reason, pages.position(part.page), missing if 1 <= missing <= most else 1)
