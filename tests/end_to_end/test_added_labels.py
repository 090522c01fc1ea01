"""A trained fleet gets labels that nobody had, with real processes."""

import json

import pytest
from drawn_pictures import NEW, draw

from cloud_server.state.checkpoints import Checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.timeout(3600)]
OLD = ("hall-1-r1", "hall-2-r1")
BEFORE, AFTER, PIXELS = 2, 3, 128  # test_newcomers.py has rounds enough to learn all there is


@pytest.fixture(scope="module")
def story(fleet):
    """Train, add two labels, let a robot join that has nothing else, train again."""
    fleet.environment = {"FLEETLEARN_TRAINING__EPOCHS": "5"}  # as without a setting
    # Robots with no label in common need features that tell things apart: random ones do not.
    fleet.init("--backbone", "efficientnet-lite0", "--image-size", PIXELS)
    fleet.start_server()
    for robot in ("hall-1/r1", "hall-2/r1"):
        fleet.add_robot(robot.replace("/", "-"), "--examples", fleet.bag(robot))
    fleet.wait("both robots", lambda: fleet.online() == set(OLD))
    told = {"first": fleet.train(BEFORE)}
    told["old"], told["features"] = fleet.measured(), features(fleet)
    checkpoints = Checkpoints(fleet.server / "checkpoints")
    told["before"] = checkpoints.latest()
    told["said"] = fleet.type("cloud-server", "labels", "add", fleet.server, *NEW).stderr
    told["after"] = checkpoints.latest()
    join_by_token(fleet, "dock", draw(fleet.root / "pictures"))
    fleet.wait("the third robot", lambda: "dock" in fleet.online())
    told["last"] = fleet.train(AFTER)
    told["kept"], told["new"] = features(fleet), fleet.measured()
    return told


def join_by_token(fleet, name, examples):
    """Let a robot come as one of twenty would: with a kit that has a token, no command for it."""
    kit, directory = fleet.root / "kit-with-token", fleet.root / "robots" / name
    fleet.type(
        "cloud-server", "robots", "token", "make", fleet.server, "--site", name, "--kit", kit
    )
    fleet.type(
        "edge-agent", "enroll", kit, "--dir", directory, "--name", name, "--examples", examples
    )
    fleet.start(name, "-m", "edge_agent.cli", "run", "--config", directory / "agent.toml")


def features(fleet):
    """Return the file of features of each old robot: its inode and its rows' bytes."""
    found = {}
    for robot in OLD:
        trainers = fleet.root / "robots" / robot / "state" / "models" / "trainers"
        (file,) = trainers.glob("*/features/*.rows")
        found[robot] = (file.stat().st_ino, file.read_bytes())
    return found


def outcomes(run):
    return [robot["verdict"] for record in run["closed"] for robot in record["robots"]]


def test_adding_labels_keeps_what_was_learned_to_the_bit(story):
    before, after = story["before"], story["after"]
    assert after.version == before.version + 1
    kernel = after.weights["head/kernel"]
    assert kernel.shape[1] == before.weights["head/kernel"].shape[1] + 2
    assert kernel[:, :4].tobytes() == before.weights["head/kernel"].tobytes()
    assert "new, to begin with the mean of the others: cone, pallet" in story["said"]


def test_robots_follow_with_their_next_round_and_compute_no_features_again(story):
    assert set(outcomes(story["last"])) == {"accepted"}
    names = {robot["name"] for robot in story["last"]["closed"][0]["robots"]}
    assert names == {*OLD, "dock"}
    assert story["kept"] == story["features"]


def test_the_robot_with_a_token_was_admitted_and_keeps_it_no_longer(story, fleet):
    robots = json.loads(fleet.type("cloud-server", "robots", "list", fleet.server, "--json").stdout)
    assert {one["name"]: one["site"] for one in robots}["dock"] == "dock"
    assert not (fleet.root / "robots" / "dock" / "token").exists()


def test_the_new_labels_are_learned_and_the_old_ones_stay(story):
    first = next(r for r in story["last"]["closed"][0]["robots"] if r["name"] == "dock")
    assert first["metrics"]["accuracy_before"] == 0.0  # not an answer before it is trained
    assert story["new"]["dock"] >= 0.8
    for robot in OLD:
        assert story["new"][robot] >= story["old"][robot] - 0.03
