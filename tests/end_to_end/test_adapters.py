"""A fleet that trains and sends adapters: rounds over TLS, publication, prediction, labels."""

import json

import numpy as np
import pytest

from cloud_server.models.own_weights import read_named
from cloud_server.state.checkpoints import Checkpoints
from fleet_model.adapters.lora import merged
from fleet_model.bundle import parse_trainer
from fleet_model.weights import read_weights

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
ROBOTS = ("hall-1-r1", "hall-2-r1")
OPTIONS = ("--adapter", "lora", "--rank", "2")


@pytest.fixture(scope="module")
def story(fleet):
    """Two robots train two rounds with FedEx-LoRA; then the fleet gets a label."""
    fleet.everywhere = fleet.without_trials
    fleet.environment = {
        "FLEETLEARN_AGGREGATION__RULE": "fedex_lora",
        "FLEETLEARN_TRAINING__EPOCHS": "5",  # as without a setting
    }
    fleet.init(*OPTIONS)
    fleet.start_server()
    for robot in ("hall-1/r1", "hall-2/r1"):
        fleet.add_robot(robot.replace("/", "-"), "--examples", fleet.bag(robot))
    fleet.wait("both robots", lambda: fleet.online() == set(ROBOTS))
    told = {"run": fleet.train(rounds=2)}
    fleet.wait("version 2", lambda: all(fleet.status(n)["active_version"] == 2 for n in ROBOTS))
    told["spec"] = parse_trainer((fleet.server / "model" / "trainer.json").read_bytes())
    told["last"] = Checkpoints(fleet.server / "checkpoints").latest()
    return told


def test_rounds_close_with_adapters_and_version_2_is_published(story):
    run = story["run"]
    assert (run["state"], run["published_version"]) == ("finished", 2)
    assert {r["outcome"] for record in run["closed"] for r in record["robots"]} == {"accepted"}
    first, last = (
        {r["name"]: r["metrics"]["train_loss"] for r in record["robots"]}
        for record in run["closed"]
    )
    assert {n: (first[n], last[n]) for n in ROBOTS if last[n] >= first[n]} == {}


def test_robots_send_adapters_alone(story, fleet):
    spec, kernel = story["spec"], "head/kernel"
    sent = sum(4 * int(np.prod(tensor.shape)) for tensor in spec.tensors.values())
    assert sent == 4 * (1280 * 2 + 2 * 4 + 4)
    for name in ROBOTS:
        ups = [one["bytes_up"] for one in fleet.status(name)["rounds"]]
        assert sent < max(ups) < 4 * (1280 * 4 + 4)  # of the head itself
    # What the rule has added goes down with the checkpoint.
    assert story["last"].weights.keys() == {*spec.tensors, f"{kernel}.lora_residual"}
    assert story["last"].weights[f"{kernel}.lora_residual"].any()


def test_the_exported_model_has_the_merged_kernel(story, fleet):
    spec, last = story["spec"], story["last"]
    base = read_weights(fleet.server / "model" / "base.safetensors")
    expected = merged(spec.adapter, last.weights, base)
    file = fleet.root / "model.safetensors"
    fleet.type(
        "cloud-server", "models", "export", fleet.server, "--format", "safetensors", "--out", file
    )
    assert np.array_equal(read_weights(file)["head/kernel"], expected["head/kernel"])
    assert not np.array_equal(expected["head/kernel"], base["head/kernel"])
    assert not any(".lora_" in name for name in read_weights(file))


def test_robots_predict_with_the_published_model(story, fleet):
    config = fleet.root / "robots" / ROBOTS[0] / "agent.toml"
    bag = fleet.root / "bags" / "hall-1" / "r1"
    done = fleet.type("edge-agent", "predict", bag, "--config", config, "--json")
    answer = json.loads(done.stdout)
    assert answer["summary"]["model_version"] == 2
    assert len(answer["predictions"]) == 60


def test_a_new_label_folds_the_adapters_into_what_they_add_to(story, fleet):
    before = read_named(fleet.server / "checkpoints" / "000002").tensors["head/kernel"]
    fleet.type("cloud-server", "labels", "add", fleet.server, "cone")
    after = Checkpoints(fleet.server / "checkpoints").latest()
    assert after.version == 3
    assert after.weights["head/kernel.lora_b"].shape == (2, 5)
    assert not after.weights["head/kernel.lora_b"].any()
    model = fleet.server / "model-000003"
    base = read_weights(model / "base.safetensors")["head/kernel"]
    assert base[:, :4].tobytes() == before.tobytes()
    assert np.allclose(base[:, 4], before.mean(1), atol=1e-6)
    run = fleet.train(rounds=1)
    assert {r["outcome"] for r in run["closed"][0]["robots"]} == {"accepted"}
    fleet.wait("version 4", lambda: all(fleet.status(n)["active_version"] == 4 for n in ROBOTS))
