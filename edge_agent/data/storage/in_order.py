"""Merge by time what was recorded in batches that overlap."""

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush, heapreplace
from itertools import chain
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.data.storage import Stored

# A time, and messages by time of which none is earlier.
Batch: TypeAlias = tuple[int, Iterable[Stored]]

_END_NS = 1 << 63
_BLOCK = 64  # messages of a batch whose places are turned into Python objects at once


def in_order(batches: Iterable[Batch]) -> Iterator[Stored]:
    """Yield the messages of all batches by time; of equal times those of the first batch first.

    Batches come by their times; one is asked for only when its time has come, so those that are
    held in memory are those that overlap.
    """
    waiting: list[tuple[int, int, Stored, Iterator[Stored]]] = []  # the next message of each batch
    end: Batch = (_END_NS, ())
    for number, (start_ns, messages) in enumerate(chain(batches, [end])):
        while waiting and waiting[0][0] < start_ns:
            _, place, stored, rest = waiting[0]
            following = next(rest, None)
            if following is None:
                heappop(waiting)
            else:
                heapreplace(waiting, (following.bag_ns, place, following, rest))
            yield stored
        rest = iter(messages)
        first = next(rest, None)
        if first is not None:
            heappush(waiting, (first.bag_ns, number, first, rest))


def in_blocks(places: NDArray[np.int64], time_column: int) -> Iterator[list[int]]:
    """Yield the rows of (messages, columns) by time; turned into lists only when they are due."""
    order = np.argsort(places[:, time_column], kind="stable")
    for first in range(0, len(order), _BLOCK):
        yield from places[order[first : first + _BLOCK]].tolist()
