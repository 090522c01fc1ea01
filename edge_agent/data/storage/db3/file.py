"""Messages of a rosbag2 SQLite file (.db3), whole or damaged, without running SQLite.

A pass over the leaf pages of the table finds where messages are; only `load` reads them.
Where the table's tree is broken, every page of the file is looked at, and whatever is a message row
by its shape is taken.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edge_agent.data.storage import Stored, Topic
from edge_agent.data.storage.db3.positions import Position, Positions, find_positions
from edge_agent.data.storage.db3.rows import read_message_row
from edge_agent.data.storage.db3.schema import read_schema
from edge_agent.data.storage.read_buffers import ReadBuffers
from edge_agent.data.storage.sqlite.pages import Pages
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

_BLOCK = 4096  # messages whose places are turned into Python objects at once


class Db3File:
    """An open .db3 file with the `-wal` beside it; see StorageFile.

    Nothing is ever written beside the file.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; raises FrameError if it has no topic."""
        self.path = path
        self._pages = Pages(path)
        self._buffers = ReadBuffers()
        self._damage = DamageLog()
        self._positions: Positions | None = None
        try:
            self._schema = read_schema(self._pages)
        except BaseException:
            self._pages.close()
            raise

    def __enter__(self) -> "Db3File":
        return self

    def __exit__(self, *_: object) -> None:
        self._pages.close()

    def topics(self) -> Sequence[Topic]:
        """Return every topic the file declares; counts are of the rows that were found."""
        counts = self._find(frozenset()).counts.tolist()
        return [t._replace(messages=n) for t, n in zip(self._schema.topics, counts, strict=True)]

    def messages(self, topics: Collection[str], damage: DamageLog) -> Iterator[Stored]:
        """Yield the messages of topics by time, then by row; see StorageFile."""
        wanted = frozenset(i for i, t in enumerate(self._schema.topics) if t.name in topics)
        positions = self._find(wanted)
        declared = self.topics()
        for log in (self._pages.damage, self._damage):
            for loss in log.all():
                damage.add(loss.kind, loss.begins, loss.count)
        chosen = np.flatnonzero(np.isin(positions.rows["topic"], list(wanted)))
        for first in range(0, len(chosen), _BLOCK):
            for row in positions.rows[chosen[first : first + _BLOCK]].tolist():
                position = Position(*row)
                load = partial(self._load, position, positions)
                yield Stored(position.stamp_ns, declared[position.topic], load)

    def _load(self, position: Position, positions: Positions) -> memoryview:
        pages = self._pages
        where = pages.position(position.page)
        page = pages.page(position.page)
        row = read_message_row(page, position.offset, pages.usable, self._schema.columns)
        if position.overflow in positions.shared:
            raise FrameError(f"{where}: its pages are another message's too", "damaged file")
        known = position.rowid, position.stamp_ns, position.overflow
        if (row.rowid, row.stamp_ns, row.overflow) != known:
            raise FrameError(f"{where}: changed while it was read", "damaged file")
        if row.rest > pages.count * pages.page_size:
            raise FrameError(f"{where}: a message larger than the file", "cut file")
        data = self._buffers.take(row.rest)
        local = row.end - row.begin
        data[:local] = page[row.begin : row.end]
        if row.overflow:
            pages.chain(row.overflow, data[local:], positions.starts)
        return data[: row.size].toreadonly()

    def _find(self, wanted: frozenset[int]) -> Positions:
        """Return the places of at least these topics."""
        if self._positions is None:
            if not (self._pages.has_header and self._schema.whole):
                self._damage.add("damaged file", self._pages.position(1))
            self._positions = find_positions(self._pages, self._schema, wanted, self._damage)
        elif not wanted <= self._positions.topics:
            self._positions = find_positions(self._pages, self._schema, wanted, DamageLog())
        return self._positions
