"""The part of benchmarks/extract.py that compares this tree with an older one."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import extract, older_tree
from benchmarks.environments import Environment


@pytest.fixture
def here(monkeypatch, tmp_path):
    """This environment in place of one made for the benchmark."""
    monkeypatch.setattr(extract, "WORK", tmp_path / "work")
    monkeypatch.setattr(extract, "environment", lambda name: Environment(Path(sys.prefix)))
    return tmp_path


@pytest.mark.skipif(
    subprocess.run(
        ["git", "-C", extract.ROOT, "cat-file", "-e", older_tree.COMMIT],
        capture_output=True, check=False,
    ).returncode != 0,
    reason="needs a clone with its history",
)  # fmt: skip
def test_both_trees_write_the_same_boxes_and_both_are_timed(here):
    seconds = extract.measure_coco(1, 300, here)

    assert set(seconds) == {("coco_to_yolo", "ours"), ("coco_to_yolo", "peer")}
    assert all(took > 0 for (took,) in seconds.values())


def test_boxes_that_are_missing_stop_the_benchmark(here, monkeypatch):
    monkeypatch.setattr(extract, "checkout", lambda into: extract.ROOT)
    monkeypatch.setattr(extract, "run", lambda *_: '{"boxes": 99, "digest": "", "seconds": 1}')
    (here / "yolo-ours").mkdir()

    with pytest.raises(RuntimeError, match="ours wrote 99 of 300 boxes"):
        extract.measure_coco(1, 300, here)


def test_the_line_of_boxes_is_a_ratio_of_medians_with_a_promise():
    arms = ("limit", "ours", "rosbags", "mcap")
    seconds = {(task, arm): [1.0] for task in extract.TASKS for arm in arms}
    seconds |= {("coco_to_yolo", "ours"): [2.0, 1.0, 9.0], ("coco_to_yolo", "peer"): [8.0]}

    made = extract.result(seconds, {"peak_mb": 1.0})

    (line,) = [each for each in made.comparisons if each.key == "coco_to_yolo"]
    assert (line.ratio, line.required) == (4.0, 3.0)
