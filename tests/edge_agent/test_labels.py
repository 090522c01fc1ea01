import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.labels import LabelSettings, NearestLabel, labelled_frames
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base

times = st.integers(0, 60)
marks = st.dictionaries(times, st.sampled_from(["circle", "star", "square"]), max_size=12)


@given(marks, times, st.integers(0, 20))
def test_the_nearest_label_within_the_tolerance_is_found(found, time, tolerance):
    nearest = NearestLabel(reversed(found.items()), tolerance / 1e9)
    distances = sorted((abs(mark - time), mark) for mark in found)
    if distances and distances[0][0] <= tolerance:
        assert nearest.at(time) == found[distances[0][1]]
    else:
        assert nearest.at(time) == ""


@given(marks, marks, times)
def test_a_farther_label_changes_nothing(found, more, time):
    nearest = NearestLabel(found.items(), 1)
    reach = min((abs(mark - time) for mark in found), default=-1)
    farther = {mark: label for mark, label in more.items() if abs(mark - time) > reach}
    if found:
        assert NearestLabel((farther | found).items(), 1).at(time) == nearest.at(time)


def test_every_frame_of_a_bag_gets_the_label_that_was_given_to_it(bags, tmp_path):
    given_labels = ["circle", "circle", "", "star"]
    path = bags.drive(tmp_path / "r1", given_labels)
    found = labelled_frames(path, LabelSettings(label_topic=bags.LABELS))
    assert [label for _, label in found] == given_labels


def test_a_wide_tolerance_fills_gaps_and_a_narrow_one_leaves_everything_unlabelled(bags, tmp_path):
    path = bags.drive(tmp_path / "r1", ["circle", "", "", "star"])
    wide = LabelSettings(label_topic=bags.LABELS, tolerance_s=0.6)
    assert [label for _, label in labelled_frames(path, wide)] == ["circle"] * 2 + ["star"] * 2
    narrow = LabelSettings(label_topic=bags.LABELS, tolerance_s=0.001)
    assert {label for _, label in labelled_frames(path, narrow)} == {""}


def test_header_stamps_match_where_the_recorder_was_late(bags, tmp_path, picture_bytes):
    start, late = bags.START_NS, 700_000_000
    messages = []
    for index, label in enumerate(["circle", "star"]):
        stamp = start + index * 1_000_000_000
        messages.append((bags.LABELS, stamp + 1000, bags.text(f" {label}\n")))
        messages.append((bags.CAMERA, stamp + late, bags.jpeg(stamp, picture_bytes(index))))
    path = bags.write(tmp_path / "r1", messages)
    found = labelled_frames(path, LabelSettings(label_topic=bags.LABELS))
    assert [label for _, label in found] == ["circle", "star"]


def test_a_bag_time_match_wins_over_the_header_stamp(bags, tmp_path, picture_bytes):
    start = bags.START_NS
    messages = [
        (bags.LABELS, start, bags.text("previous")),
        (bags.CAMERA, start + 100_000_000, bags.jpeg(start, picture_bytes(0))),
        (bags.LABELS, start + 101_000_000, bags.text("own")),
    ]
    path = bags.write(tmp_path / "r1", messages)
    ((_, label),) = labelled_frames(path, LabelSettings(label_topic=bags.LABELS))
    assert label == "own"


def test_without_a_label_topic_frames_have_no_label_and_a_wrong_one_is_an_error(bags, tmp_path):
    path = bags.drive(tmp_path / "r1", ["star"])
    assert [label for _, label in labelled_frames(path, LabelSettings())] == [""]
    with pytest.raises(FrameError, match=rf"no label topic .* /sign; it has {bags.LABELS}"):
        next(labelled_frames(path, LabelSettings(label_topic="/sign")))


def test_the_folder_names_the_label(image_folder):
    folder = image_folder("signs", {"star": 1, "circle": 2})
    found = [label for _, label in labelled_frames(folder, LabelSettings())]
    assert found == ["circle", "circle", "star"]
    assert [label for _, label in labelled_frames(folder / "star", LabelSettings())] == ["star"]
