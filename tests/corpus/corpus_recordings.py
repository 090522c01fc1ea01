"""Undamaged recordings whose clocks, order or sizes are not what a reader might expect."""

from typing import Any, NamedTuple

import numpy as np
from corpus_bags import PERIOD_NS, START_NS, Record, evenly, mcap_library, ros1

_DAY_NS = 86_400 * 10**9
_NO_SUMMARY = {"use_statistics": False, "use_summary_offsets": False, "repeat_channels": False}


class Recording(NamedTuple):
    """How a bag is written, and when what was recorded."""

    write: Any
    clock: Any = evenly  # picture -> bag time
    order: tuple[int, ...] = (0, 1, 2, 3, 4, 5)  # in which pictures came to the recorder
    has_stamps: bool = True  # in the headers; else bag time counts


def without_indexes(compression="NONE", **options):
    from mcap.writer import IndexType

    return mcap_library(compression, per_chunk=4, index_types=IndexType.NONE, **options)


def _at_zero(bag_ns):
    return 0


def _now(bag_ns):
    return START_NS


def _since_boot(bag_ns):
    return bag_ns - START_NS + 5 * 10**9


def _in_2200(index):
    return 7_258_118_400 * 10**9 + index * PERIOD_NS


def _simulated(index):
    return 30 * 10**9 + index * PERIOD_NS


def _of_an_old_bag(index):
    return 1_585_897_255 * 10**9 + index * PERIOD_NS


def _set_while_recording(index):
    return index * PERIOD_NS + (START_NS if index > 2 else 0)


def _months_apart(index):
    return START_NS + index * 90 * _DAY_NS


def _before_1970(index):
    return (index - 4) * PERIOD_NS - 10


def with_a_large_map(write_bag):
    """Return a writer that adds a map of 1 MB behind everything else."""

    def write(folder, records):
        def make(store, _):
            name = "std_msgs/msg/UInt8MultiArray"
            layout = store.types["std_msgs/msg/MultiArrayLayout"]([], 0)
            return store.types[name](layout, np.zeros(1 << 20, np.uint8))

        late = records[-1].bag_ns + 1
        return write_bag(
            folder, [*records, Record("/map", late, "std_msgs/msg/UInt8MultiArray", make)]
        )

    return write


_SHUFFLED = (0, 3, 1, 4, 2, 5)
_UNCHUNKED = {"use_chunking": False}
RECORDINGS = {
    "mcap without chunks, published at zero": Recording(
        mcap_library(publish=_at_zero, **_UNCHUNKED)
    ),
    "mcap without chunks or summary, published at zero": Recording(
        mcap_library(publish=_at_zero, **_UNCHUNKED, **_NO_SUMMARY)
    ),
    "mcap without chunks, an old recording played again": Recording(
        mcap_library(publish=_now, **_UNCHUNKED), _of_an_old_bag
    ),
    "mcap without chunks, in the year 2200": Recording(
        mcap_library(publish=_at_zero, **_UNCHUNKED), _in_2200
    ),
    "mcap without indexes, published since boot": Recording(without_indexes(publish=_since_boot)),
    "mcap with zstd, without indexes, simulated": Recording(
        without_indexes("ZSTD", publish=_now), _simulated
    ),
    "mcap with lz4, without indexes or summary, months apart": Recording(
        without_indexes("LZ4", publish=_at_zero, **_NO_SUMMARY), _months_apart
    ),
    "mcap without indexes, a clock set while recording": Recording(
        without_indexes(publish=_at_zero), _set_while_recording
    ),
    "mcap, before 1970": Recording(mcap_library(per_chunk=4), _before_1970, has_stamps=False),
    "mcap with zstd, before 1970": Recording(
        mcap_library("ZSTD", per_chunk=2), _before_1970, has_stamps=False
    ),
    "mcap without chunks, before 1970": Recording(
        mcap_library(publish=_at_zero, **_UNCHUNKED), _before_1970, has_stamps=False
    ),
    "mcap without chunks, out of order": Recording(mcap_library(**_UNCHUNKED), order=_SHUFFLED),
    "mcap without summary, its second half first": Recording(
        without_indexes("ZSTD", **_NO_SUMMARY), order=(2, 3, 4, 5, 0, 1)
    ),
    "mcap with lz4, chunks that overlap": Recording(
        mcap_library("LZ4", per_chunk=4), order=_SHUFFLED
    ),
    "ROS 1, chunks that overlap": Recording(ros1(chunk_bytes=2000), order=_SHUFFLED),
    "ROS 1 with bz2, chunks that overlap": Recording(ros1("BZ2", 2000), order=_SHUFFLED),
    "ROS 1 with lz4, chunks of two publishers that overlap": Recording(
        ros1("LZ4", 2000, publishers=2), order=_SHUFFLED
    ),
}
