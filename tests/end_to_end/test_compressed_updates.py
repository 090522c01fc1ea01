"""Two agents that send their updates in eight bits a number, over TLS."""

import json

import pytest

from cloud_server.state.checkpoints import Checkpoints
from edge_agent.training.residual import FILE, UNSENT
from fleet_model.compression.codec import INT8, Codec, coded_bytes
from fleet_model.weights import read_metadata, size_bytes

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
NAMES, ROUNDS = ("r1", "r2"), 3


@pytest.fixture(scope="module")
def trained(fleet):
    """Return the run of three rounds."""
    fleet.init()
    fleet.environment = {"FLEETLEARN_ROUNDS__COMPRESSION": "int8"}
    fleet.start_server(exports=False)
    for number, name in enumerate(NAMES, 1):
        fleet.add_robot(name, "--examples", fleet.bag(f"hall-{number}/r1", frames=40))
    fleet.wait("both online", lambda: fleet.online() == set(NAMES))
    return fleet.train(rounds=ROUNDS)


def test_every_round_closes_with_both_robots(fleet, trained):
    outcomes = [r["outcome"] for record in trained["closed"] for r in record["robots"]]
    assert outcomes == ["accepted"] * len(NAMES) * ROUNDS


def test_the_history_says_how_many_bytes_went_up_and_down(fleet, trained):
    model = Checkpoints(fleet.server / "checkpoints").load(0).weights
    for record in trained["closed"]:
        assert record["request_bytes"] == size_bytes(model)
        for robot in record["robots"]:
            assert (robot["codec"], robot["update_bytes"]) == (
                "int8",
                coded_bytes(model, Codec(INT8)),
            )
            assert 0 < robot["metrics"][UNSENT] < 0.1
    shown = fleet.type("cloud-server", "status", fleet.server).stdout
    assert "kB from each of 2 in int8; " in shown


def test_a_robot_keeps_what_it_owes_and_says_what_it_sent(fleet, trained):
    for name in NAMES:
        state = fleet.root / "robots" / name / "state"
        about = read_metadata(state / FILE)
        assert (about["run"], about["version"]) == (trained["id"], str(ROUNDS - 1))
        last = fleet.status(name)["rounds"][-1]
        assert last["codec"] == "int8"
        model = Checkpoints(fleet.server / "checkpoints").load(0).weights
        assert last["bytes_up"] < size_bytes(model) < last["bytes_down"]
        config = fleet.root / "robots" / name / "agent.toml"
        shown = fleet.type("edge-agent", "status", "--config", config).stdout
        assert "kB sent (int8), " in shown
        assert json.loads((state / "status.json").read_text())["last_failure"] == ""


def test_nobody_complains(fleet, trained):
    for name in ("server", *NAMES):
        assert " ERROR " not in fleet.log(name)
        assert "not sent any more" not in fleet.log(name)
