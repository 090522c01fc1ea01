"""Messages of a rosbag2 SQLite file (.db3), whole or damaged, without running SQLite.

One pass over the leaf pages of the table finds where every message is; only `load` reads messages.
Where the table's tree is broken, every page of the file is looked at, and whatever is a message row
by its shape is taken.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.frames.damage import DamageLog
from edge_agent.frames.storage import Stored, Topic
from edge_agent.frames.storage.db3_places import OVERFLOW, TOPIC, Place, find_places
from edge_agent.frames.storage.db3_rows import read_message_row
from edge_agent.frames.storage.db3_schema import read_schema
from edge_agent.frames.storage.read_buffers import ReadBuffers
from edge_agent.frames.storage.sqlite_pages import Pages
from fleet_model.errors import FrameError

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
        self._places: NDArray[np.int64] | None = None
        self._starts = np.empty(0, np.int64)  # the pages that messages go on at, in order
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
        counts = np.bincount(self._find()[:, TOPIC], minlength=len(self._schema.topics)).tolist()
        return [t._replace(messages=n) for t, n in zip(self._schema.topics, counts, strict=True)]

    def messages(self, topics: Collection[str], damage: DamageLog) -> Iterator[Stored]:
        """Yield the messages of topics by time, then by row; see StorageFile."""
        declared = self.topics()
        for log in (self._pages.damage, self._damage):
            for loss in log.all():
                damage.add(loss.kind, loss.begins, loss.count)
        places = self._find()
        wanted = [i for i, topic in enumerate(declared) if topic.name in topics]
        chosen = np.flatnonzero(np.isin(places[:, TOPIC], wanted))
        for first in range(0, len(chosen), _BLOCK):
            for row in places[chosen[first : first + _BLOCK]].tolist():
                place = Place(*row)
                yield Stored(place.stamp_ns, declared[place.topic], partial(self._load, place))

    def _load(self, place: Place) -> memoryview:
        pages = self._pages
        where = pages.place(place.page)
        page = pages.page(place.page)
        row = read_message_row(page, place.offset, pages.usable)
        if place.overflow < 0:
            raise FrameError(f"{where}: its pages are another message's too", "damaged file")
        known = place.rowid, place.stamp_ns, place.overflow
        if (row.rowid, row.stamp_ns, row.overflow) != known:
            raise FrameError(f"{where}: changed while it was read", "damaged file")
        if row.size > pages.count * pages.page_size:
            raise FrameError(f"{where}: a message larger than the file", "cut file")
        data = self._buffers.take(row.size)
        local = row.end - row.begin
        data[:local] = page[row.begin : row.end]
        if row.overflow:
            pages.chain(row.overflow, data[local:], self._starts)
        return data.toreadonly()

    def _find(self) -> NDArray[np.int64]:
        if self._places is None:
            if not (self._pages.has_header and self._schema.whole):
                self._damage.add("damaged file", self._pages.place(1))
            self._places = find_places(self._pages, self._schema, self._damage)
            self._starts = np.sort(self._places[:, OVERFLOW])
        return self._places
