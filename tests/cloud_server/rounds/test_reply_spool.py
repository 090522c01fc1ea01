import errno
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.rounds.reply_spool import Kept, ReplySpool
from fleet_model.errors import StorageError
from fleet_model.protocol.outcome import ACCEPTED, Outcome
from fleet_model.types import Update

KEPT = Kept(
    ticket="t1",
    robot="hall-1",
    site="hall",
    round=3,
    verdict=ACCEPTED,
    base_version=7,
    num_examples=11,
    num_steps=2,
    update_bytes=12,
    metrics={"loss_after": 0.1},
    norm=math.sqrt(2),
)
UPDATE = Update(
    robot="hall-1",
    base_version=7,
    weights={"w": np.array([1.5, -2, 3e-40], np.float32), "b": np.zeros((0, 2), np.float32)},
    num_examples=11,
    num_steps=2,
    metrics={"loss_after": 0.1},
)
REFUSED = Kept(
    ticket="t2", robot="yard-1", site="yard", round=3, verdict=Outcome("refused", "w holds NaN")
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "replies.spool"


def same(one, other):
    assert repr(replace(one, weights={})) == repr(replace(other, weights={}))
    assert one.weights.keys() == other.weights.keys()
    for name, tensor in one.weights.items():
        assert tensor.dtype == other.weights[name].dtype
        assert tensor.shape == other.weights[name].shape
        assert tensor.tobytes() == other.weights[name].tobytes()


def test_a_reply_is_read_back_bit_for_bit_by_this_process_and_the_next(file):
    spool = ReplySpool(file)
    spool.keep([(KEPT, UPDATE), (REFUSED, None)])

    for one in (spool, ReplySpool(file)):
        assert one.kept == (KEPT, REFUSED)
        same(one.read(KEPT), UPDATE)


def test_a_tensor_that_lies_otherwise_in_memory_is_the_same_tensor(file):
    weights = {"w": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))}
    spool = ReplySpool(file)
    spool.keep([(KEPT, replace(UPDATE, weights=weights))])

    np.testing.assert_array_equal(spool.read(KEPT).weights["w"], [[0, 1, 2], [3, 4, 5]])


def test_the_replies_of_an_older_release_are_taken_over_with_their_kinds(file):
    shutil.copy(Path(__file__).parent / "recorded" / "replies-87262d4.spool", file)

    spool = ReplySpool(file)

    assert [kept.verdict for kept in spool.kept] == [
        ACCEPTED,
        Outcome("refused", "w holds NaN or infinity, expected finite numbers"),
        Outcome("late", "its round had closed"),
        Outcome("busy", "charging"),
        Outcome("failed", "it said: refused: by me"),
    ]
    assert spool.read(spool.kept[0]).weights["w"].tolist() == [1.5, -2]
    assert spool.numbers(spool.kept[0], "w", 1, 2).tolist() == [-2]


@given(norm=st.floats(0, allow_infinity=False, allow_nan=False))
def test_a_length_is_read_back_to_the_last_bit(tmp_path_factory, norm):
    file = tmp_path_factory.mktemp("norm") / "replies.spool"
    ReplySpool(file).keep([(replace(KEPT, norm=norm, metrics={"m": norm}), None)])

    (kept,) = ReplySpool(file).kept
    assert kept.norm == norm
    assert kept.metrics == {"m": norm}


def test_a_batch_is_synced_once(file, monkeypatch):
    spool = ReplySpool(file)
    spool.keep([(KEPT, UPDATE)])
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)

    spool.keep([(replace(KEPT, ticket=f"more-{i}"), UPDATE) for i in range(5)])

    assert len(calls) == 1


def test_wherever_the_file_is_torn_the_whole_replies_before_are_there_and_more_can_be_kept(file):
    tickets = [replace(KEPT, ticket=f"t{i}") for i in range(3)]
    ends = []
    spool = ReplySpool(file)
    for kept in tickets:
        spool.keep([(kept, UPDATE)])
        ends.append(file.stat().st_size)
    content = file.read_bytes()

    for length in {*range(0, len(content), 13), *ends, *(end - 1 for end in ends)}:
        file.write_bytes(content[:length])
        torn = ReplySpool(file)
        whole = [k for k, end in zip(tickets, ends, strict=True) if end <= length]
        assert list(torn.kept) == whole
        torn.keep([(REFUSED, None)])
        assert list(ReplySpool(file).kept) == [*whole, REFUSED]


@pytest.mark.parametrize("garbage", [bytes(500), b"\xff" * 500])
def test_blocks_that_never_reached_the_disk_are_cut_off(file, garbage):
    ReplySpool(file).keep([(KEPT, UPDATE)])
    length = file.stat().st_size
    with file.open("ab") as stream:
        stream.write(garbage)

    assert ReplySpool(file).kept == (KEPT,)
    assert file.stat().st_size == length


def test_any_flipped_bit_ends_the_file_before_its_reply(file):
    spool = ReplySpool(file)
    spool.keep([(KEPT, UPDATE)])
    first = file.stat().st_size
    spool.keep([(REFUSED, None)])
    content = file.read_bytes()

    for server_dir in range(first, len(content)):
        flipped = bytearray(content)
        flipped[server_dir] ^= 1
        file.write_bytes(flipped)
        assert ReplySpool(file).kept == (KEPT,)


def test_damage_after_opening_is_told_with_the_robot_and_never_folded(file):
    spool = ReplySpool(file)
    spool.keep([(KEPT, UPDATE)])
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    told = (
        r"reply of robot hall-1 is damaged.*disk, then `cloud-server runs resume DIR`: the robot is"
    )
    with pytest.raises(StorageError, match=told):
        spool.read(KEPT)


def test_tensors_that_cannot_be_read_are_told_with_the_robot(file):
    spool = ReplySpool(file)
    spool.keep([(KEPT, None)])

    with pytest.raises(StorageError, match="reply of robot hall-1 is damaged"):
        spool.read(KEPT)


def test_a_full_disk_leaves_the_file_as_it_was(file, monkeypatch):
    spool = ReplySpool(file)
    spool.keep([(KEPT, UPDATE)])
    before = file.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        spool.keep([(REFUSED, None)])
    monkeypatch.undo()

    assert file.read_bytes() == before
    assert spool.kept == (KEPT,)
    spool.keep([(REFUSED, None)])
    assert ReplySpool(file).kept == (KEPT, REFUSED)


WIDE = replace(
    UPDATE,
    weights={
        "head/bias": np.array(2.5, np.float32),
        "trunk": np.arange(1_000_000, dtype=np.float32).reshape(1000, 1000),
        "none": np.zeros((0, 2), np.float32),
        "head/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    },
)


def test_a_piece_of_any_tensor_is_read_by_this_process_and_the_next(file):
    spool = ReplySpool(file)
    spool.keep([(REFUSED, None), (KEPT, WIDE), (replace(KEPT, ticket="t3"), UPDATE)])

    for one in (spool, ReplySpool(file)):
        for name, tensor in WIDE.weights.items():
            whole = one.numbers(KEPT, name, 0, tensor.size)
            assert whole.tobytes() == tensor.tobytes()
        np.testing.assert_array_equal(one.numbers(KEPT, "head/kernel", 5, 8), [5, 6, 7])
        np.testing.assert_array_equal(one.numbers(KEPT, "trunk", 999_999, 1_000_000), [999_999])


class Counting:
    """A stream that adds up what is read."""

    def __init__(self, stream, counts):
        self._stream, self._counts = stream, counts

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def read(self, size=-1):
        content = self._stream.read(size)
        self._counts.append(len(content))
        return content


def test_one_tensor_is_read_without_the_rest_of_the_update(file, monkeypatch):
    spool, counts, opened = ReplySpool(file), [], type(file).open
    spool.keep([(KEPT, WIDE)])
    monkeypatch.setattr(type(file), "open", lambda *a, **k: Counting(opened(*a, **k), counts))

    spool.numbers(KEPT, "head/kernel", 0, 12)
    small = sum(counts)
    spool.numbers(KEPT, "trunk", 0, 10)
    first = sum(counts) - small
    spool.numbers(KEPT, "trunk", 500, 510)

    assert small < 2000
    assert 4_000_000 < first < 4_002_000  # compared with its checksum, in chunks
    assert max(counts) <= 1 << 20
    assert sum(counts) - small - first < 2000  # compared once


@pytest.mark.parametrize("reopened", [False, True])
def test_damage_of_a_tensor_is_told_with_the_robot_and_other_tensors_are_still_read(file, reopened):
    spool = ReplySpool(file)
    spool.keep([(KEPT, WIDE)])
    spool = ReplySpool(file) if reopened else spool
    content = bytearray(file.read_bytes())
    content[-48 - 4_000] ^= 1  # in the last kilobytes of the trunk
    file.write_bytes(content)

    with pytest.raises(StorageError, match="reply of robot hall-1 is damaged"):
        spool.numbers(KEPT, "trunk", 0, 1)
    np.testing.assert_array_equal(spool.numbers(KEPT, "head/kernel", 0, 2), [0, 1])


@pytest.mark.parametrize("read", [lambda s: s.read(KEPT), lambda s: s.numbers(KEPT, "w", 0, 3)])
def test_a_file_that_was_cut_after_opening_is_told_with_the_robot_wherever_it_ends(file, read):
    spool = ReplySpool(file)
    spool.keep([(KEPT, UPDATE)])
    content = file.read_bytes()

    read(spool)  # it was good, and is compared with its checksum once
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        with pytest.raises(StorageError, match="reply of robot hall-1 is damaged"):
            read(spool)
