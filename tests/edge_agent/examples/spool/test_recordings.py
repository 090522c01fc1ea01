"""When a bag in the spool counts as complete."""

import os
import subprocess
import sys

import pytest

from edge_agent.examples.spool.recordings import Spool, find_recordings

pytestmark = pytest.mark.base

SETTLE_S, POWER_LOSS_S = 5.0, 600.0


class Clock:
    """A clock of both kinds; files are touched with it."""

    def __init__(self):
        self.now = 1_760_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def spool(tmp_path, clock):
    (tmp_path / "spool").mkdir()
    return Spool(
        tmp_path / "spool", SETTLE_S, POWER_LOSS_S, monotonic_s=clock, now_s=lambda: clock.now
    )


@pytest.fixture
def put(tmp_path, clock):
    """Return a writer of spool/<name>, stamped with the clock."""

    def write(name, content=b"x"):
        path = tmp_path / "spool" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (clock.now, clock.now))
        return path

    return write


def names(spool):
    return [recording.path.name for recording in spool.complete()]


def after(spool, clock, seconds):
    """Look now and `seconds` later."""
    names(spool)
    clock.now += seconds
    return names(spool)


def test_a_bag_with_metadata_is_complete_when_it_has_settled(spool, put, clock):
    put("run/run_0.mcap")
    put("run/metadata.yaml")
    assert after(spool, clock, SETTLE_S - 1) == []
    clock.now += 1
    assert names(spool) == ["run"]
    assert names(spool) == ["run"]  # it is for the caller to remember what it has taken


def test_a_folder_without_metadata_waits_for_ten_minutes(spool, put, clock):
    put("run/run_0.db3")
    assert after(spool, clock, POWER_LOSS_S - 1) == []
    clock.now += 1
    assert names(spool) == ["run"]


def test_after_a_restart_the_age_of_a_cut_bag_counts_too(spool, put, clock):
    put("run/run_0.db3")
    clock.now += POWER_LOSS_S
    assert names(spool) == []  # a clock that has jumped makes a bag look old that is being written
    assert after(spool, clock, SETTLE_S) == ["run"]


def test_a_bag_that_grows_is_not_complete(spool, put, clock):
    for size in range(1, 5):
        put("run.mcap", b"x" * size)
        assert after(spool, clock, SETTLE_S - 1) == []
    assert after(spool, clock, SETTLE_S) == ["run.mcap"]


def test_a_bag_that_changes_after_it_was_complete_is_a_new_signature(spool, put, clock):
    put("run.mcap")
    assert after(spool, clock, SETTLE_S) == ["run.mcap"]
    (first,) = spool.complete()
    put("run.mcap", b"longer")
    assert names(spool) == []
    clock.now += SETTLE_S
    (second,) = spool.complete()
    assert first.path == second.path
    assert first.signature != second.signature


@pytest.mark.parametrize("beside", ["run.db3-wal", "run.db3-journal", "run.db3-shm"])
def test_a_database_that_is_open_waits_for_ten_minutes(spool, put, clock, beside):
    put("run.db3")
    put(beside)
    assert after(spool, clock, POWER_LOSS_S - 1) == []
    clock.now += 1
    assert names(spool) == ["run.db3"]


def test_a_ros_1_recording_that_was_never_closed_waits_for_ten_minutes(spool, put, clock):
    put("run.bag.active")
    put("done.bag")
    assert after(spool, clock, SETTLE_S) == ["done.bag"]
    clock.now += POWER_LOSS_S
    assert names(spool) == ["done.bag", "run.bag.active"]


def test_bags_are_found_at_any_depth_and_each_once(spool, put, clock):
    put("b.mcap")
    put("monday/morning/run/run_0.mcap.zstd")
    put("monday/morning/run/run_1.mcap.zstd")
    put("monday/morning/run/metadata.yaml")
    put("monday/old_0.bag")
    put("monday/old_1.bag")
    put("notes.txt")
    put("empty/metadata.yaml")
    put(".hidden/run.mcap")
    put(".run.mcap.x7Q")
    found = after(spool, clock, SETTLE_S)
    assert found == ["b.mcap", "old_0.bag", "old_1.bag", "run"]


def test_a_spool_that_is_itself_a_bag_is_one(spool, put, clock):
    put("run_0.mcap")
    put("run_1.mcap")
    assert after(spool, clock, SETTLE_S) == ["run_0.mcap", "run_1.mcap"]
    put("metadata.yaml")
    assert after(spool, clock, SETTLE_S) == ["spool"]


def test_links_in_a_circle_end(tmp_path, put):
    put("run.mcap")
    (tmp_path / "spool" / "again").symlink_to(tmp_path / "spool")
    assert len(list(find_recordings(tmp_path / "spool"))) < 20


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Spool(tmp_path / "gone", SETTLE_S).complete()


def test_looking_loads_nothing_heavy():
    heavy = ["numpy", "cv2", "rosbags", "pydantic", "edge_agent.data.frames.source"]
    code = f"import edge_agent.examples.spool, sys; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
