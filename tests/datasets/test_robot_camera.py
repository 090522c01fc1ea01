"""The generator of robot-camera bags, run as a person runs it."""

import hashlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

SCRIPT = Path(__file__).parents[2] / "datasets" / "robot_camera.py"
LABELS = {"circle", "square", "star", "triangle"}


@pytest.fixture(scope="module")
def robot_camera():
    spec = importlib.util.spec_from_file_location("robot_camera", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


def read(bag):
    """Return (image messages, label messages), each a list of (bag time in ns, message)."""
    with AnyReader([bag]) as reader:
        found = {"/camera/image/compressed": [], "/camera/label": []}
        for connection, stamp_ns, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            found[connection.topic].append((stamp_ns, message))
    return tuple(found.values())


def digests(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return (folder, printed JSON, progress, contact sheet) of the script run as a process."""
    out = tmp_path_factory.mktemp("bags")
    sheet = out.with_suffix(".png")
    command = [sys.executable, str(SCRIPT), str(out), "--robots=hall-1/r1,hall-2/r1", "--json"]
    command += ["--frames=12", f"--contact-sheet={sheet}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    return out, json.loads(ran.stdout), ran.stderr, sheet


def test_every_frame_is_a_jpeg_that_decodes_to_a_colour_picture(made):
    out, _, _, _ = made
    images, _ = read(out / "hall-1" / "r1")
    assert len(images) == 12
    for _, message in images:
        assert "jpeg" in message.format
        assert message.header.frame_id == "hall-1/r1/camera_optical_frame"
        assert message.data[:2].tobytes() == b"\xff\xd8"
        picture = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
        assert picture.shape == (240, 320, 3)
        assert picture.std() > 10


def test_frames_arrive_at_two_hertz_each_soon_after_its_exposure_and_before_its_label(made):
    out, _, _, _ = made
    images, labels = read(out / "hall-2" / "r1")
    bag_ns = np.array([stamp_ns for stamp_ns, _ in images])
    assert np.abs(np.diff(bag_ns) / 1e9 - 0.5).max() < 0.02
    for (arrived_ns, image), (answered_ns, label) in zip(images, labels, strict=True):
        stamp = image.header.stamp
        assert 0 < arrived_ns - (stamp.sec * 10**9 + stamp.nanosec) < 20e6
        assert 0 < answered_ns - arrived_ns < 10e6
        assert label.data in LABELS


def test_the_printed_counts_are_those_in_the_bags_and_every_label_occurs(made):
    out, printed, progress, _ = made
    assert [entry["robot"] for entry in printed["bags"]] == ["hall-1/r1", "hall-2/r1"]
    for entry in printed["bags"]:
        assert entry["bag"] == str(out / entry["robot"])
        assert entry["bag"] in progress
        _, labels = read(Path(entry["bag"]))
        counts = Counter(message.data for _, message in labels)
        assert entry["labels"] == counts
        assert set(counts) == LABELS
        assert entry["frames"] == sum(counts.values()) == 12


def test_the_seed_and_the_name_decide_every_byte_whoever_else_is_generated(
    made, robot_camera, tmp_path
):
    out, _, _, _ = made
    for seed in ("2", "3"):
        robot_camera.main(
            [str(tmp_path / seed), "--robots=hall-2/r1", "--frames=12", "--seed", seed]
        )
    expected = digests(out / "hall-2" / "r1")
    assert set(expected) == {"metadata.yaml", "r1.mcap"}
    assert digests(tmp_path / "2" / "hall-2" / "r1") == expected
    assert digests(tmp_path / "3" / "hall-2" / "r1") != expected
    assert digests(out / "hall-1" / "r1") != expected


def test_a_uniform_prior_deals_every_label_equally_often(robot_camera):
    rng = np.random.default_rng(0)
    look = robot_camera.robot_look("hall-3/r1", seed=7, prior="uniform")
    dealt = robot_camera.deal_labels(look.prior, 80, rng)
    assert Counter(dealt) == dict.fromkeys(LABELS, 20)


def test_a_dirichlet_prior_is_kept_but_leaves_no_label_out(robot_camera):
    prior, rng = np.array([0.7, 0.3, 0.0, 0.0]), np.random.default_rng(0)
    counts = Counter(robot_camera.deal_labels(prior, 80, rng))
    assert counts == {"circle": 55, "square": 23, "star": 1, "triangle": 1}


def test_one_sign_stays_for_two_to_four_frames_so_only_time_can_split_them(robot_camera):
    look = robot_camera.robot_look("hall-1/r1", seed=3, prior="uniform")
    labels = [shot.label for shot in robot_camera.shots("hall-1/r1", look, 16, seed=3)]
    changes = sum(before != after for before, after in itertools.pairwise(labels))
    assert len(labels) == 16
    assert changes < 8


def test_robots_of_one_site_share_a_pool_of_five_walls(robot_camera):
    looks = [robot_camera.robot_look(f"hall-1/r{i}", seed=7) for i in range(20)]
    assert len({photo for look in looks for photo in look.photos}) == 5
    assert len({look.jpeg_quality for look in looks}) > 5


def test_the_contact_sheet_shows_one_row_of_eight_frames_per_robot(made):
    _, _, _, sheet = made
    assert cv2.imread(str(sheet)).shape == (2 * 240, 8 * 320, 3)


@pytest.mark.parametrize("robots", ["r1", "hall-1/../r1", "../r1", "/tmp/r1", "hall-1/r1,"])
def test_a_robot_name_that_could_leave_the_folder_is_refused(
    robot_camera, tmp_path, capsys, robots
):
    with pytest.raises(SystemExit, match="2"):
        robot_camera.main([str(tmp_path / "out"), f"--robots={robots}"])
    assert "expected site/name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_existing_bag_is_refused_and_left_alone(made, robot_camera, capsys):
    out, _, _, _ = made
    before = digests(out)
    with pytest.raises(SystemExit, match="2"):
        robot_camera.main([str(out), "--robots=hall-5/r1,hall-1/r1", "--frames=4"])
    assert "exists; remove it" in capsys.readouterr().err
    assert digests(out) == before
