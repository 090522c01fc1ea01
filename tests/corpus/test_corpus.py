"""Bags of every encoding, padding, storage, compression and damage, against independent pixels."""

import zlib
from itertools import cycle
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("mcap", reason="needs the mcap library")

from corpus_bags import PERIOD_NS, START_NS, STORAGES, camera_records
from corpus_checks import Losses, check_extracting, check_reading
from corpus_damage import DAMAGES
from corpus_defects import DEFECTIVE, DEFECTS
from corpus_pictures import KINDS, make
from corpus_recordings import RECORDINGS, with_a_large_map

pytestmark = [pytest.mark.base, pytest.mark.slow]

FRAMES = 6
NOTHING = Losses()


class Case(NamedTuple):
    """One bag."""

    kind: str  # of corpus_pictures.KINDS
    storage: str  # of corpus_bags.STORAGES
    size: tuple[int, int] = (14, 22)
    padding: int = 0  # bytes behind every row
    bigendian: int = 0

    def __str__(self):
        height, width = self.size
        order = ", big-endian" if self.bigendian else ""
        return f"{self.kind} {width}x{height}+{self.padding}{order} in {self.storage}"


def _encodings():
    """Every encoding with and without padding; sizes, byte orders, storages in turn."""
    storages, odd_sizes = cycle(STORAGES), cycle([(13, 21), (5, 33), (31, 3), (3, 4)])
    even_sizes = cycle([(14, 22), (6, 34), (32, 2), (2, 6)])
    for kind in KINDS:
        way = KINDS[kind].__name__
        for padding in (0, 7) if way in RAW else (0,):
            size = next(even_sizes if way.startswith("yuv") else odd_sizes)
            yield Case(kind, next(storages), size, padding, bigendian=int(padding > 0))


RAW = ("interleaved", "bayer", "yuv_pairs", "yuv_planes")
CASES = [
    *_encodings(),
    *(Case("jpeg", storage, (48, 64)) for storage in STORAGES),
    *(Case("bgr8", storage, padding=3) for storage in STORAGES),
]


def pictures_of(case):
    rng = np.random.default_rng(zlib.crc32(str(case).encode()))
    return [make(case.kind, rng, case.size, case.padding, case.bigendian) for _ in range(FRAMES)]


def write(case, folder, pictures, stamps=None):
    return STORAGES[case.storage](
        folder / "bag", camera_records([p.message for p in pictures], stamps)
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_pixel_of_an_undamaged_bag_is_right(case, tmp_path):
    pictures = pictures_of(case)
    path = write(case, tmp_path, pictures)
    check_reading(path, pictures, NOTHING)
    check_extracting(path, pictures, NOTHING, tmp_path / "out")


@pytest.mark.parametrize(("what", "storage"), list(zip(DEFECTS, cycle(STORAGES))))
def test_messages_that_drivers_got_wrong_are_counted_by_their_reason(what, storage, tmp_path):
    kind, change, reason = DEFECTS[what]
    pictures = pictures_of(Case(kind, storage))
    for number in DEFECTIVE:
        pictures[number] = pictures[number]._replace(message=change(pictures[number].message))
    path = write(Case(kind, storage), tmp_path, pictures)
    losses = Losses(frozenset(DEFECTIVE), {reason: len(DEFECTIVE)})
    check_reading(path, pictures, losses)
    check_extracting(path, pictures, losses, tmp_path / "out")


@pytest.mark.parametrize("what", DAMAGES)
def test_of_a_damaged_bag_only_the_damaged_part_is_missing(what, tmp_path):
    storage, kind, damage = DAMAGES[what]
    is_large = kind.startswith("large ")  # than what zstd compresses at a time
    case = Case(kind.removeprefix("large "), storage, (160, 300) if is_large else (22, 46))
    pictures = pictures_of(case)
    path = write(case, tmp_path, pictures)
    losses = damage(path, pictures)
    check_reading(path, pictures, losses)
    check_extracting(path, pictures, losses, tmp_path / "out")


@pytest.mark.parametrize("what", RECORDINGS)
def test_every_frame_of_an_undamaged_recording_is_read_in_the_order_of_time(what, tmp_path):
    recording = RECORDINGS[what]
    pictures = pictures_of(Case("rgb8", what))
    times = [recording.clock(index) for index in range(FRAMES)]
    stamps = None if recording.has_stamps else [0] * FRAMES
    records = camera_records([p.message for p in pictures], stamps, recording.clock)
    shuffled = [records[2 * index + part] for index in recording.order for part in (0, 1)]
    path = recording.write(tmp_path / "bag", shuffled)
    expected = None if recording.has_stamps else times
    check_reading(path, pictures, NOTHING, expected)
    check_extracting(path, pictures, NOTHING, tmp_path / "out", expected)


@pytest.mark.parametrize("storage", ["mcap library, zstd", "mcap library, lz4", "ROS 1, lz4"])
def test_a_chunk_beyond_what_is_unpacked_costs_no_frame_before_it(storage, tmp_path, monkeypatch):
    for kind in ("mcap", "ros1"):
        monkeypatch.setattr(f"edge_agent.data.storage.{kind}.chunk.CHUNK_LIMIT", 100_000)
    case = Case("rgb8", storage)
    pictures = pictures_of(case)
    records = camera_records([p.message for p in pictures])
    path = with_a_large_map(STORAGES[storage])(tmp_path / "bag", records)
    check_reading(path, pictures, NOTHING)
    check_extracting(path, pictures, NOTHING, tmp_path / "out")


def test_zero_stamps_are_replaced_and_equal_ones_get_names_of_their_own(tmp_path):
    case = Case("jpeg", "mcap", (32, 32))
    pictures = pictures_of(case)
    same = START_NS + 77
    path = write(case, tmp_path, pictures, [0, same, same, same, 0, same])
    stamps = [START_NS, same, same, same, START_NS + 4 * PERIOD_NS, same]
    check_reading(path, pictures, NOTHING, stamps)
    check_extracting(path, pictures, NOTHING, tmp_path / "out", stamps)
