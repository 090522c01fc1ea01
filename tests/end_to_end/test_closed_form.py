"""A new fleet begins with one exchange of sums, goes on with gradients, and unlearns a robot."""

import json
import shutil

import numpy as np
import pytest

from cloud_server.rounds.sums_exchange import head_of, space_of
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import load_settings
from cloud_server.state.sums.sums_store import SumsStore
from fleet_model.bundle import parse_trainer

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.timeout(3600)]
ROBOTS = ("hall-1-r1", "hall-1-r2", "hall-2-r1")
FORGOTTEN = "hall-1-r2"


@pytest.fixture(scope="module")
def story(fleet):
    """Sums and a round; kill -9; the same sums again; one robot is unlearned."""
    fleet.init("--backbone", "efficientnet-lite0", "--image-size", 128)
    fleet.start_server(exports=False)
    for robot in ROBOTS:
        bag = fleet.bag(robot.replace("-r", "/r"), frames=160)
        fleet.add_robot(robot, "--examples", bag)
    fleet.wait("all robots", lambda: fleet.online() == set(ROBOTS))
    told = {"first": train(fleet, 2, "ridge")}
    told["files"] = files(fleet)
    fleet.processes["server"].kill()
    fleet.processes.pop("server").wait()
    told["kept"] = files(fleet)
    fleet.start_server(exports=False)
    fleet.wait("all robots again", lambda: fleet.online() == set(ROBOTS))
    told["again"] = train(fleet, 1, "ridge")
    told["same"] = files(fleet)
    told["trained"] = train(fleet, 1, "off")
    shutil.copytree(fleet.server / "sums", fleet.root / "sums")
    told["unlearned"] = fleet.type(
        "cloud-server", "robots", "forget", fleet.server, FORGOTTEN, "--unlearn"
    ).stdout
    told["status"] = fleet.type("cloud-server", "status", fleet.server).stdout
    return told


def train(fleet, rounds, method):
    done = fleet.type(
        "cloud-server", "train", fleet.server, "--rounds", rounds, "--closed-form", method, "--json"
    )
    return json.loads(done.stdout.splitlines()[-1])


def files(fleet):
    return {file.name: file.read_bytes() for file in (fleet.server / "sums").glob("*.safetensors")}


def weights(fleet, version):
    return Checkpoints(fleet.server / "checkpoints").load(version).weights


def test_the_first_round_is_one_exchange_of_sums(story):
    first, second = story["first"]["closed"]
    assert first["metrics"]["sums_robots"] == 3
    assert {robot["verdict"] for robot in first["robots"]} == {"accepted"}
    assert all(0 < robot["update_bytes"] < 70_000 for robot in first["robots"])
    assert {robot["verdict"] for robot in second["robots"]} == {"accepted"}


def test_its_head_knows_much_before_any_gradient(story):
    second = story["first"]["closed"][1]
    assert second["metrics"]["accuracy_before"] > 0.6  # of four labels


def test_robots_remember_what_they_told_and_hold_no_frames_in_it(story, fleet):
    for robot in ROBOTS:
        (file,) = (fleet.root / "robots" / robot / "state" / "sums").glob("*.safetensors")
        assert file.stat().st_size < 200_000
        assert b"hall" not in file.read_bytes()  # no path


def test_sums_survive_kill_9_and_the_same_data_give_the_same_bits(story, fleet):
    assert story["files"] == story["kept"] == story["same"]
    assert len(story["files"]) == 3
    one, other = weights(fleet, 1), weights(fleet, 3)
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_off_trains_from_the_first_round(story):
    assert "accuracy_after" in story["trained"]["closed"][0]["metrics"]


def test_an_unlearned_robot_leaves_no_trace_in_the_head(story, fleet):
    server_dir = ServerDirectory(fleet.server)
    newest = Checkpoints(server_dir.checkpoints).latest()
    assert newest.version == 5
    head, space = space_of(parse_trainer((server_dir.model / "trainer.json").read_bytes()))
    before = SumsStore(fleet.root / "sums")
    before.forget(FORGOTTEN)
    settings = load_settings(server_dir.settings)
    expected = head_of(before.of(space), "ridge", settings.checks, "test")
    np.testing.assert_allclose(newest.weights[head.kernel], expected.kernel, rtol=1e-9)
    np.testing.assert_allclose(newest.weights[head.bias], expected.bias, rtol=1e-9)
    assert SumsStore(server_dir.sums).robots() == [one for one in ROBOTS if one != FORGOTTEN]


def test_it_is_said_that_gradient_rounds_begin_again(story):
    assert f"forgotten {FORGOTTEN}" in story["unlearned"]
    assert "version 4 had been trained by gradients" in story["unlearned"]
    assert "models publish" in story["unlearned"]
    assert "version 5 is a head in closed form (ridge): 2 robots" in story["status"]
