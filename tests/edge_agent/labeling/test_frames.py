import os
import shutil

import pytest

from edge_agent.data.manifest import MANIFEST, ManifestRow, write_manifest
from edge_agent.labeling.frames import KeptFrames, spread_order, thinned
from fleet_model.types import Box

pytestmark = pytest.mark.base


@pytest.fixture
def listed(robot, tmp_path):
    """Return what a robot would be asked about."""

    def call(*paths, boxes=False, everything=False, **examples):
        call.frames = KeptFrames(
            robot(*paths, **examples), tmp_path / "index", boxes=boxes, everything=everything
        )
        return list(call.frames.listed())

    return call


def seconds(found, bags):
    return [(one.name.stamp_ns - bags.START_NS) / 1e9 for one in found]


def test_frames_without_a_label_are_asked_about(bags, tmp_path, listed):
    bag = bags.drive(tmp_path / "r1", ["circle", "", "star", "", ""])
    found = listed(bag)
    assert seconds(found, bags) == [0.5, 1.5, 2.0]
    assert {(one.name.source, one.name.topic) for one in found} == {("r1", bags.CAMERA)}
    assert found[0].frame.decode().shape == (24, 32, 3)
    assert [one.label for one in listed(bag, everything=True)] == ["circle", "", "star", "", ""]


def test_a_bag_without_the_label_topic_is_all_unlabelled(bags, tmp_path, listed):
    bag = bags.drive(tmp_path / "r1", [""] * 3)
    assert len(listed(bag)) == 3
    assert listed.frames.problems == []


def test_what_cannot_be_read_is_told_and_hides_nothing_else(bags, tmp_path, listed):
    bag = bags.drive(tmp_path / "r1", [""] * 3)
    assert len(listed(tmp_path / "gone", bag)) == 3
    (problem,) = listed.frames.problems
    assert problem.startswith("gone: no such file")


def test_bags_of_the_spool_count_once_they_are_complete(bags, tmp_path, listed):
    spool = tmp_path / "spool"
    bag = bags.drive(spool / "old", [""] * 2)
    for file in bag.iterdir():
        os.utime(file, (1, 1))
    shutil.copytree(bags.drive(tmp_path / "made", [""] * 4, start_ns=10**18), spool / "new")
    found = listed(spool=spool)
    assert {one.name.source for one in found} == {"old"}
    assert len(found) == 2


def test_a_frame_that_lies_there_twice_is_asked_about_once(bags, tmp_path, listed):
    bag = bags.drive(tmp_path / "a" / "r1", [""] * 2)
    shutil.copytree(bag, tmp_path / "b" / "r1")
    assert len(listed(tmp_path / "a", tmp_path / "b")) == 2


def test_where_boxes_are_wanted_a_label_of_the_whole_is_not_enough(tmp_path, listed, picture_bytes):
    folder = tmp_path / "set"
    folder.mkdir()
    box = Box(label="cup", x0=1.0, y0=2.0, x1=9.0, y1=8.0)
    rows = []
    for number, boxes in enumerate(((), (box,), ())):
        (folder / f"{number}.jpg").write_bytes(picture_bytes(number))
        rows.append(
            ManifestRow(
                file=f"{number}.jpg", topic="/camera", stamp_ns=number, source="r1", label="cup",
                boxes=boxes, seen=number > 0,
            )
        )  # fmt: skip
    write_manifest(folder / MANIFEST, rows)
    assert [one.name.stamp_ns for one in listed(folder, boxes=True)] == [0]
    assert listed(folder) == []


@pytest.mark.parametrize(
    ("count", "kept"),
    [(0, []), (4, [0, 1, 2, 3]), (5, [0, 2, 4]), (9, [0, 4, 8]), (100, [0, 32, 64, 96])],
)
def test_of_many_frames_some_are_taken_evenly(count, kept):
    assert thinned(range(count), most=4) == (kept, count)


def test_every_beginning_of_the_order_lies_evenly():
    assert spread_order(8) == [0, 4, 2, 6, 1, 5, 3, 7]
    assert spread_order(5) == [0, 4, 2, 1, 3]
    assert spread_order(1) == [0]
    assert spread_order(0) == []
