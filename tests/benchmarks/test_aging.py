"""The parts of benchmarks/aging.py that can be wrong without anyone noticing."""

import json
import os
import sqlite3
import subprocess
from contextlib import closing

import numpy as np
import pytest

from benchmarks import aging, older_tree
from benchmarks.aging import Side
from benchmarks.aging_data import make_frames
from fleet_model.weights import read_weights

history = pytest.mark.skipif(
    subprocess.run(
        ["git", "-C", aging.ROOT, "cat-file", "-e", older_tree.COMMIT],
        capture_output=True, check=False,
    ).returncode != 0,
    reason="needs a clone with its history",
)  # fmt: skip
SIDES = {"ours": [2.0, 1.0, 3.0], "peer": [20.0, 22.0, 30.0]}


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    """This tree with a store of twenty frames: ten pictures, ten in a bag."""
    work = tmp_path_factory.mktemp("aging")
    make_frames(work / "frames", 20)
    (work / "state").mkdir()
    return Side("ours", aging.ROOT, work, 1)


def test_ratios_are_of_medians_and_what_must_stay_flat_is_a_limit():
    times = dict.fromkeys(("run_start", "history", "second_round_scan"), SIDES)
    made = aging.result(times, {"ours": 0.0, "peer": 9.0}, peak_mb=7.5)

    assert {c.key: c.ratio for c in made.comparisons} == dict.fromkeys(times, 11.0)
    assert {c.key: c.required for c in made.comparisons} == {
        "run_start": 10, "history": 10, "second_round_scan": 5,
    }  # fmt: skip
    assert {limit.key: limit.at_most for limit in made.limits} == {
        "second_round_frame_bytes": 0, "hash_peak_mb": 100,
    }  # fmt: skip
    assert made.figures["second_round_frame_bytes"] == 0
    assert made.figures["history_s"] == 2.0


def test_every_opening_of_a_frame_file_counts_in_the_first_round_and_none_in_the_second(side):
    frames = side.work / "frames"
    size = sum(p.stat().st_size for p in frames.rglob("*") if p.suffix in (".jpg", ".mcap"))

    first, second = side.list_examples(20), side.list_examples(20)

    assert first["frame_bytes"] >= size
    assert second["frame_bytes"] == 0
    assert first["examples"] == second["examples"] > 15


def test_a_frame_that_is_new_is_opened_in_the_second_round(side):
    side.list_examples(20)
    picture = next((side.work / "frames" / "pictures" / "a").iterdir())
    os.utime(picture, ns=(1, 1))

    assert side.list_examples(20)["frame_bytes"] == picture.stat().st_size


def test_a_file_of_tensors_is_as_large_as_asked_and_readable(tmp_path):
    file = aging.make_tensors(tmp_path / "large.safetensors", 8_000_000)

    weights = read_weights(file)

    assert len(weights) == 8
    assert sum(tensor.nbytes for tensor in weights.values()) == 8_000_000
    assert all(np.add.reduce(tensor) == 0 for tensor in weights.values())


def test_memory_that_a_process_takes_to_hash_is_seen(tmp_path):
    tree = tmp_path / "tree" / "fleet_model"
    tree.mkdir(parents=True)
    (tree / "__init__.py").touch()
    (tree / "bundle.py").write_text(
        "import hashlib, time\n"
        "from types import SimpleNamespace\n"
        "def entry_of_file(path):\n"
        "    content = bytearray(path.read_bytes())\n"
        "    for _ in range(30): hashlib.sha256(content).digest()\n"  # long enough to be seen
        "    return SimpleNamespace(size_bytes=len(content))\n"
    )
    (tree / "weights.py").write_text("def read_weights(path): return {}\n")
    file = aging.make_tensors(tmp_path / "large.safetensors", 40_000_000)

    wasteful = aging.hash_peak_mb(tree.parent, file)
    ours = aging.hash_peak_mb(aging.ROOT, file)

    assert wasteful > 39
    assert ours < 20


def test_requests_are_counted_in_flowers_database(tmp_path):
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.execute("CREATE TABLE message_ins (message_id TEXT)")
        assert aging.queued(tmp_path / "state.db") == set()
        connection.execute("INSERT INTO message_ins VALUES ('a')")
        connection.commit()
    assert aging.queued(tmp_path / "state.db") == {"a"}


@history
def test_the_older_commit_is_checked_out_with_its_own_modules(tmp_path):
    tree = older_tree.checkout(tmp_path / "peer")

    assert (tree / "cloud_server" / "checkpoints.py").exists()
    found = aging.run(tree, ["-c", "import cloud_server.checkpoints as c; print(c.__file__)"])
    assert found.strip() == str(tree / "cloud_server" / "checkpoints.py")


@history
@pytest.mark.slow
def test_both_sides_start_from_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(aging, "WORK", tmp_path)
    ages = aging.Ages(robots=2, checkpoints=3, versions=5, frames=4)

    ours, peer = aging.make_sides(ages)

    files = {
        side.name: {
            path.relative_to(side.work): path.read_bytes()
            for path in side.work.rglob("*")
            if path.is_file()
        }
        for side in (ours, peer)
    }
    assert files["ours"] == files["peer"]
    lines = (ours.work / "server" / "history.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["robots"]) for line in lines] == [2] * 5
    for side in (ours, peer):
        assert aging.history_seconds(side) > 0
