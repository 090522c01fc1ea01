"""A mistyped label set on half of the robots reaches none; commands publish it and take it back."""

import hashlib
import json

import cv2
import numpy as np
import pytest

from cloud_server.state.checkpoints import Checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
ROBOTS = ("right", "mistyped")


def pictures(folder, dark, bright):
    """Write 40 dark and 40 bright pictures into folders that are named by label."""
    rng = np.random.default_rng(3)
    for number in range(80):
        label, level = ((dark, 40), (bright, 210))[number % 2]
        image = rng.normal(level, 8, (96, 96, 3)).clip(0, 255).astype(np.uint8)
        file = folder / label / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), image)
    return folder


@pytest.fixture(scope="module")
def story(fleet):
    """Train, be refused, publish all the same, roll back, train again."""
    fleet.environment = {"FLEETLEARN_GATE__PUBLISH": "checked", "FLEETLEARN_TRAINING__EPOCHS": "5"}
    fleet.init()
    fleet.start_server()
    for name, labels in zip(ROBOTS, (("circle", "star"), ("star", "circle")), strict=True):
        fleet.add_robot(name, "--examples", pictures(fleet.root / name, *labels))
    fleet.wait("version 0", lambda: active(fleet) == {0})
    told = {"train": fleet.type("cloud-server", "train", fleet.server, "--rounds", 2, exit_code=16)}
    told["status"] = fleet.type("cloud-server", "status", fleet.server).stdout
    told["after training"], told["first"] = active(fleet), heads(fleet)
    told["publish"] = fleet.type("cloud-server", "models", "publish", fleet.server, 2).stdout
    fleet.wait("version 2", lambda: active(fleet) == {2})
    told["second"] = heads(fleet)
    told["rollback"] = fleet.type("cloud-server", "models", "rollback", fleet.server).stdout
    fleet.wait("version 3", lambda: active(fleet) == {3})
    told["third"] = heads(fleet)
    fleet.type("cloud-server", "train", fleet.server, "--rounds", 1, "--json", exit_code=16)
    return told


def active(fleet):
    return {fleet.status(name).get("active_version") for name in ROBOTS}


def heads(fleet):
    """Return the sha256 of the head that each robot runs."""
    current = (fleet.root / "robots" / name / "state/models/current/head.tflite" for name in ROBOTS)
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in current]


def test_train_and_status_say_why_it_is_not_published_and_the_command(story, fleet):
    command = f"`cloud-server models publish {fleet.server} 2`"
    for said in (story["train"].stderr, story["status"]):
        assert "version 2 is NOT PUBLISHED, robots keep the one that they run: " in said
        assert "do labels of some robots contradict those of others?" in said
        assert command in said


def test_no_robot_has_got_it(story):
    assert story["after training"] == {0}


def test_the_command_publishes_it_all_the_same(story):
    assert "version 2 is published; the next run goes on from it" in story["publish"]
    assert story["second"] != story["first"]


def test_a_rollback_brings_the_old_weights_under_a_higher_number(story):
    assert "robots get version 0 again, as version 3" in story["rollback"]
    assert story["third"] == story["first"]


def test_the_next_run_begins_with_what_was_rolled_back_to(story, fleet):
    runs = json.loads(fleet.type("cloud-server", "runs", "list", fleet.server, "--json").stdout)
    assert runs[-1]["first_version"] == 3
    checkpoints = Checkpoints(fleet.server / "checkpoints")
    one, two = (checkpoints.load(v).weights for v in (0, 3))
    assert all((one[name] == two[name]).all() for name in one)


def test_history_and_models_tell_the_whole_story(story, fleet):
    history = fleet.type("cloud-server", "history", fleet.server).stdout
    assert "robots get version 0 again, as version 3 (by `cloud-server models rollback`)" in history
    listed = json.loads(fleet.type("cloud-server", "models", "list", fleet.server, "--json").stdout)
    told = [(m["version"], m.get("release", {}).get("by")) for m in listed["versions"]]
    assert told == [(0, None), (2, "models publish"), (3, "models rollback")]
    assert [one["version"] for one in listed["withheld"]] == [4]
    assert listed["channels"] == {"stable": 3}
