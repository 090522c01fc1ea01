"""A fleet learns boxes from YOLO data, with real processes: init, rounds, trial, predict."""

import json

import cv2
import numpy as np
import pytest

from cloud_server.state.checkpoints import Checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
LABELS, COLORS = ("blue", "red"), ((230, 40, 20), (30, 30, 220))  # as OpenCV has them
FRAMES, WIDTH, HEIGHT = 48, 160, 120
INIT = ("--workload", "object-detector", "--labels", ",".join(LABELS), "--image-size", 128)


def draw(folder, seed):
    """Write a YOLO data set: noise with none, one or two blocks, each red or blue."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(FRAMES):
        picture, lines = rng.integers(60, 140, (HEIGHT, WIDTH, 3)).astype(np.uint8), []
        left = 0
        for _ in range(number % 3):
            (width, height), label = rng.integers(24, 50, 2), rng.integers(2)
            x, y = left + rng.integers(0, 25), rng.integers(0, HEIGHT - height)
            picture[y : y + height, x : x + width] = COLORS[label]
            center = (x + width / 2) / WIDTH, (y + height / 2) / HEIGHT
            lines.append(f"{label} {center[0]} {center[1]} {width / WIDTH} {height / HEIGHT}\n")
            left = x + width + 5
        cv2.imwrite(str(folder / "images" / f"{number:03d}.png"), picture)
        (folder / "labels" / f"{number:03d}.txt").write_text("".join(lines))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(LABELS))
    (folder / "data.yaml").write_text(f"train: images\nval: images\nnames:\n{names}")
    return folder


@pytest.fixture(scope="module")
def story(fleet):
    """Two robots learn; return what was told."""
    fleet.environment = {
        "FLEETLEARN_TRAINING__EPOCHS": "12",
        "FLEETLEARN_ROUNDS__COMPRESSION": "int8",
    }
    fleet.everywhere = {"EDGE_AGENT_INSTALL__PROBATION_S": "0"}
    fleet.type("cloud-server", "init", fleet.server, *INIT, "--port", fleet.port)
    fleet.start_server()
    for number in (1, 2):
        data = draw(fleet.root / "data" / f"r{number}", number)
        fleet.add_robot(f"r{number}", "--examples", data, run=False)
    fleet.run_robot("r1")
    fleet.run_robot("r2", EDGE_AGENT_ENGINE__PRECISION="int8")
    fleet.wait("both robots", lambda: fleet.online() == {"r1", "r2"})
    return fleet.train(3)


def test_rounds_close_and_the_fleet_finds_boxes(story):
    assert story["published_version"] == 3
    robots = story["closed"][-1]["robots"]
    assert [robot["outcome"] for robot in robots] == ["accepted", "accepted"]
    for robot in robots:
        assert robot["metrics"]["map50_after"] > 0.5
        assert robot["metrics"]["unreadable"] == 0
    first = [robot["metrics"]["map50_before"] for robot in story["closed"][0]["robots"]]
    assert max(first) < 0.2


def test_the_kit_says_that_boxes_have_the_labels(story, fleet):
    kit = (fleet.server / "kit" / "kit.toml").read_text()
    assert 'labels = ["blue", "red"]' in kit
    assert "boxes = true" in kit


def test_updates_are_small(story, fleet):
    weights = Checkpoints(fleet.server / "checkpoints").latest().weights
    numbers = sum(tensor.size for tensor in weights.values())
    for robot in story["closed"][-1]["robots"]:
        assert robot["update_bytes"] < 1.2 * numbers  # a byte for each number


def test_a_robot_installs_it_after_a_trial_by_pictures(story, fleet):
    fleet.wait("version 3", lambda: fleet.status("r1").get("active_version") == 3)
    fleet.wait("its trial", lambda: (fleet.status("r1").get("trial") or {}).get("version") == 3)
    trial = fleet.status("r1")["trial"]
    assert trial["measure"] == "map50"
    assert trial["after"] > trial["before"]


@pytest.mark.parametrize(("robot", "precision"), [("r1", "fp32"), ("r2", "int8")])
def test_predict_finds_and_draws_what_no_robot_has_seen(story, fleet, robot, precision):
    fleet.wait("version 3", lambda: fleet.status(robot).get("active_version") == 3)
    unseen = fleet.root / "data" / "unseen"
    if not unseen.exists():
        draw(unseen, 3)
    out = fleet.root / precision
    out.mkdir()
    config = fleet.root / "robots" / robot / "agent.toml"
    done = fleet.type(
        "edge-agent", "predict", unseen, "--config", config, "--precision", precision, "--json",
        "--annotate", out / "drawn", "--coco", out / "found.json", "--curves", out / "curves.png",
    )  # fmt: skip
    summary = json.loads(done.stdout)["summary"]
    assert summary["frames"] == summary["labelled"] == FRAMES
    assert summary["measures"]["map50"] > 0.5
    assert len(list((out / "drawn").iterdir())) == FRAMES
    found = json.loads((out / "found.json").read_text())
    sure = [one for one in found if one["score"] > 0.5]
    assert sure
    for one in sure:  # in pixels of the frame
        x, y, width, height = one["bbox"]
        assert x >= 0
        assert y >= 0
        assert x + width <= WIDTH + 1e-6
        assert y + height <= HEIGHT + 1e-6
    assert (out / "curves.png").stat().st_size > 1000
