"""The stock ClientApp gives the replies that the lean agent gives."""

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from edge_agent.client_app import app
from fleet_model.bundle import TRAINER, entry_of
from fleet_model.types import Checkpoint, TrainConfig
from fleet_model.weights import read_weights
from fleet_model.wire import TrainRequest, pack_request, unpack_update


@pytest.fixture(autouse=True)
def as_a_server_app(monkeypatch):
    """Flower makes instruction messages only where a ServerApp runs."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def message(shared_server):
    model = shared_server.place.model
    entry = entry_of((model / TRAINER).read_bytes())
    request = TrainRequest(
        deadline_s=60.0,
        run="run",
        round=1,
        checkpoint=Checkpoint(version=1, weights=read_weights(model / "weights.safetensors")),
        config=TrainConfig(epochs=1, batch_size=4),
        trainer=entry.sha256,
        trainer_bytes=entry.size_bytes,
    )
    return Message(pack_request(request), 1, "train")


def run_app(message, **node_config) -> Message:
    return app(message, Context(1, 1, node_config, RecordDict(), {}))


def test_a_message_is_trained_and_answered(shared_server, message, image_folder, tmp_path):
    folder = image_folder("frames", {"circle": 12, "square": 12, "star": 12})
    config = shared_server.admit(tmp_path / "r1", "r1", train=True, examples=(folder,))
    update = unpack_update(run_app(message, agent=str(config)).content, "r1")
    assert update.base_version == 1
    assert update.num_examples > 20
    assert set(update.weights) == {"head/kernel", "head/bias"}


def test_without_the_settings_path_the_reply_says_what_is_missing(message):
    reply = run_app(message)
    assert reply.error.reason == "node config lacks agent=PATH of this robot's agent.toml"


def test_settings_that_are_wrong_are_told_without_their_path(message, tmp_path):
    reply = run_app(message, agent=str(tmp_path / "agent.toml"))
    assert reply.error.reason.startswith("<path>: no such file")
