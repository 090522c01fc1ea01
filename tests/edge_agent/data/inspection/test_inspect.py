import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.inspection.inspect import Gap, evenly_spaced, find_gaps, inspect
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base

T0 = 1_760_000_000_000_000_000
MS = 1_000_000
CAMERA, LABELS = "/camera/image/compressed", "/camera/label"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_topics_come_with_types_counts_rates_and_times(bags, tmp_path, storage):
    bag = bags.drive(tmp_path / "r1", ["star", "", "circle"], storage=storage)
    found = inspect(bag)
    assert (found.name, found.damage) == ("r1", ())
    camera, labels = found.topics
    assert (camera.name, camera.type) == (CAMERA, "sensor_msgs/CompressedImage")
    assert (camera.messages, camera.rate_hz) == (3, 2.0)
    assert (camera.first_ns, camera.last_ns) == (T0 + 9 * MS, T0 + 1009 * MS)
    assert (labels.type, labels.messages, labels.rate_hz) == ("std_msgs/String", 2, 1.0)


def test_a_topic_with_one_message_has_no_rate(bags, tmp_path):
    bag = bags.drive(tmp_path / "r1", ["star"])
    assert [(t.messages, t.rate_hz, t.gaps) for t in inspect(bag).topics] == [(1, 0.0, ())] * 2


def times(*steps_ms):
    return T0 + np.cumsum([0, *steps_ms]).astype(np.int64) * MS


def test_a_gap_is_several_lost_messages_on_a_regular_topic():
    assert find_gaps(times(*[33] * 20, 100, *[33] * 20)) == (Gap(T0 + 660 * MS, 0.1),)
    assert find_gaps(times(*[33, 35, 31, 50] * 10)) == ()
    assert find_gaps(times(10, 5000)) == ()
    assert find_gaps(times()) == ()


def test_of_very_many_gaps_the_longest_are_listed_in_their_order():
    steps = [step for gap in range(300) for step in [10] * 30 + [1000 + gap * 7 % 300]]
    gaps = find_gaps(times(*steps))
    assert len(gaps) == 100
    assert [gap.begins_ns for gap in gaps] == sorted(gap.begins_ns for gap in gaps)
    assert min(gap.seconds for gap in gaps) >= 1.2 - 1e-9


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=60), st.integers(1, 25))
def test_chosen_frames_are_among_those_there(offsets, count):
    chosen = evenly_spaced(np.array(offsets, np.int64), count)
    assert 1 <= len(chosen) <= count
    assert chosen <= set(range(len(offsets)))


def test_chosen_frames_are_evenly_spaced_in_time_whatever_the_order():
    shuffled = np.random.default_rng(1).permutation(101)
    chosen = evenly_spaced(T0 + shuffled * MS, 5)
    assert sorted(shuffled[index] for index in chosen) == [0, 25, 50, 75, 100]


def test_samples_show_the_frames_and_say_why_one_is_missing(bags, tmp_path, picture_bytes):
    contents = [picture_bytes(i, shape=(480, 960, 3)) for i in range(5)]
    contents[2] = contents[2][:-20]
    messages = [(CAMERA, T0 + i, bags.jpeg(T0 + i, c)) for i, c in enumerate(contents)]
    found = inspect(bags.write(tmp_path / "r1", messages))
    (camera,) = found.cameras
    assert [(d.kind, d.count) for d in found.damage] == [("cut jpeg", 1)]
    assert camera.damaged_ns == (T0 + 2,)
    shapes = [s.picture.shape if s.picture is not None else None for s in camera.samples]
    assert shapes == [(240, 480, 3)] * 2 + [None] + [(240, 480, 3)] * 2
    assert [s.remark for s in camera.samples][1:3] == ["jpeg 960 x 480", "cut jpeg"]
    assert abs(float(camera.samples[4].picture.mean()) - 24) < 1.5


def test_damage_that_only_decoding_shows_is_found_in_the_samples(bags, tmp_path, spoilt_png):
    messages = [(CAMERA, T0, bags.jpeg(T0, spoilt_png, "png"))]
    found = inspect(bags.write(tmp_path / "r1", messages))
    assert [d.kind for d in found.damage] == ["damaged png"]


def test_a_cut_bag_is_inspected_as_far_as_it_goes(bags, tmp_path):
    bag = bags.drive(tmp_path / "r1", ["star"] * 50)
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found = inspect(bag)
    camera = next(topic for topic in found.topics if topic.name == CAMERA)
    assert 10 < camera.messages < 50
    assert "cut file" in {d.kind for d in found.damage}
    assert sum(d.count for d in found.damage if d.kind == "cut file") == 1  # not once a reading


def test_depth_and_16_bit_pictures_are_shown_in_colors(bags, tmp_path):
    depth = np.arange(1, 65, dtype=np.uint16).reshape(4, 16) * 100
    depth[0, 0] = 0
    messages = [("/depth", T0, bags.raw(T0, depth.view(np.uint8), "16UC1", width=16))]
    (camera,) = inspect(bags.write(tmp_path / "r1", messages)).cameras
    picture = camera.samples[0].picture
    assert picture.shape == (4, 16, 3)
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[0, 1, 2] > picture[3, 15, 2]  # near is blue
    assert picture[3, 15, 0] > picture[0, 1, 0]  # far is red


def test_several_cameras_share_the_pictures(bags, tmp_path, picture_bytes):
    messages = [
        (f"/cam{camera}", T0 + i, bags.jpeg(T0, picture_bytes(i)))
        for i in range(40)
        for camera in range(3)
    ]
    found = inspect(bags.write(tmp_path / "r1", messages))
    assert [len(camera.samples) for camera in found.cameras] == [6, 6, 6]


def test_progress_counts_messages(bags, tmp_path):
    told = []
    inspect(bags.drive(tmp_path / "r1", ["a", "b"]), lambda *done: told.append(done))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_no_bag_is_an_error_that_says_what_is_expected(tmp_path, image_folder):
    with pytest.raises(FrameError, match="no such file"):
        inspect(tmp_path / "gone")
    with pytest.raises(FrameError, match="is no bag; expected a rosbag2 folder"):
        inspect(image_folder("photos", {"star": 1}))
    (tmp_path / "x.mcap").write_bytes(b"")
    with pytest.raises(FrameError):
        inspect(tmp_path / "x.mcap")
    shutil.rmtree(tmp_path / "photos")


@pytest.mark.parametrize("path", [".", "deep/.."])
def test_a_folder_that_is_named_by_its_place_has_a_name(bags, tmp_path, monkeypatch, path):
    bag = bags.drive(tmp_path / "r1", ["star"])
    (bag / "deep").mkdir()
    monkeypatch.chdir(bag)
    assert inspect(Path(path)).name == "r1"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    with pytest.raises(FrameError, match=f"^{tmp_path.name}: is no bag"):
        inspect(Path(path))
