"""Merge by time what was recorded in batches that overlap."""

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush, heapreplace
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
    for number, (start_ns, messages) in enumerate(batches):
        yield from _before(start_ns, waiting)
        rest = iter(messages)
        for first in rest:
            heappush(waiting, (first.bag_ns, number, first, rest))
            break
    yield from _before(_END_NS, waiting)


def _before(
    end_ns: int, waiting: list[tuple[int, int, Stored, Iterator[Stored]]]
) -> Iterator[Stored]:
    while waiting and waiting[0][0] < end_ns:
        _, number, stored, rest = waiting[0]
        following = next(rest, None)
        if following is None:
            heappop(waiting)
        else:
            heapreplace(waiting, (following.bag_ns, number, following, rest))
        yield stored


def in_blocks(places: NDArray[np.int64], time_column: int) -> Iterator[list[int]]:
    """Yield the rows of (messages, columns) by time; turned into lists only when they are due."""
    order = np.argsort(places[:, time_column], kind="stable")
    for first in range(0, len(order), _BLOCK):
        yield from places[order[first : first + _BLOCK]].tolist()
