"""The stock ClientApp gives the replies that the lean agent gives."""

import time
from dataclasses import replace

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from edge_agent.client_app import app
from fleet_model.bundle import TRAINER, entry_of
from fleet_model.errors import UpdateError
from fleet_model.protocol.wire import RobotRequest, message_type, pack_request, unpack_update
from fleet_model.types import Checkpoint, TrainConfig
from fleet_model.weights import read_weights


@pytest.fixture(autouse=True)
def as_a_server_app(monkeypatch):
    """Flower makes instruction messages only where a ServerApp runs."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def ask(shared_server):
    """Return a maker of train messages that the server waits for so long."""
    model = shared_server.server_dir.model
    entry = entry_of((model / TRAINER).read_bytes())
    request = RobotRequest(
        deadline_s=60.0,
        run="run",
        round=1,
        checkpoint=Checkpoint(version=1, weights=read_weights(model / "weights.safetensors")),
        config=TrainConfig(epochs=1, batch_size=4),
        trainer=entry.sha256,
        trainer_bytes=entry.size_bytes,
    )

    def ask(ttl_s, kind="train"):
        return Message(pack_request(replace(request, kind=kind)), 1, message_type(kind), ttl=ttl_s)

    return ask


@pytest.fixture
def message(ask):
    return ask(60.0)


def run_app(message, **node_config) -> Message:
    return app(message, Context(1, 1, node_config, RecordDict(), {}))


def test_a_message_is_trained_and_answered(shared_server, message, image_folder, tmp_path):
    folder = image_folder("frames", {"circle": 12, "square": 12, "star": 12})
    config = shared_server.admit(tmp_path / "r1", "r1", train=True, examples=(folder,))
    update = unpack_update(run_app(message, agent=str(config)).content, "r1")
    assert update.base_version == 1
    assert update.num_examples > 20
    assert set(update.weights) == {"head/kernel", "head/bias"}


def test_a_checkpoint_is_measured(shared_server, ask, image_folder, tmp_path):
    folder = image_folder("frames", {"circle": 12, "square": 12, "star": 12})
    config = shared_server.admit(tmp_path / "r2", "r2", train=True, examples=(folder,))
    told = unpack_update(run_app(ask(60.0, "evaluate"), agent=str(config)).content, "r2")
    assert (told.kind, told.base_version, dict(told.weights)) == ("evaluate", 1, {})
    assert told.num_examples > 0
    assert {"accuracy", "loss"} <= told.metrics.keys()
    assert told.metrics["held_out"] == told.num_examples


def test_what_a_newer_server_asks_is_declined_by_name(shared_server, ask, tmp_path):
    config = shared_server.admit(tmp_path / "r3", "r3", train=True, examples=(tmp_path,))
    reply = run_app(ask(60.0, "calibrate"), agent=str(config))
    assert reply.error.reason == (
        "failed: this agent does not know requests of kind 'calibrate', only train, evaluate, "
        "sums, profile: update the agent"
    )


def test_without_the_settings_path_the_reply_says_what_is_missing(message):
    reply = run_app(message)
    assert reply.error.reason == "failed: node config lacks agent=PATH of this robot's agent.toml"


def test_settings_that_are_wrong_are_told_without_their_path(message, tmp_path):
    reply = run_app(message, agent=str(tmp_path / "agent.toml"))
    assert reply.error.reason.startswith("failed: <path>: no such file")


def test_a_message_whose_time_is_over_is_not_trained(ask):
    message = ask(0.1)
    time.sleep(0.2)
    with pytest.raises(UpdateError, match="the server waits for it no longer"):
        run_app(message)  # without settings, which would be its reply


def test_a_training_ends_when_the_server_waits_no_longer(shared_server, ask, tmp_path, monkeypatch):
    config = shared_server.admit(tmp_path / "slow", "slow", train=True, examples=(tmp_path,))
    monkeypatch.setenv(
        "EDGE_AGENT_TRAINING__TRAINER", "benchmarks.constant_trainer:ConstantTrainer"
    )
    monkeypatch.setenv("CONSTANT_TRAINER_S", "600")
    with pytest.raises(UpdateError, match="the server waits for it no longer"):
        run_app(ask(2.0), agent=str(config))
