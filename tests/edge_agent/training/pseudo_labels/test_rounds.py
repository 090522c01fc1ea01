"""From agent.toml to an update and the status: real bags, the real trainer, two rounds."""

from pathlib import Path
from typing import Any

import pytest

from cloud_server.state.model_store import DirectoryStore
from edge_agent.agent.participation import Participation
from edge_agent.agent.pulse import Pulse
from edge_agent.agent.status import StatusFile, read_status
from edge_agent.cli.status_lines import status_lines
from edge_agent.link.news import News
from edge_agent.models.deploy import Models
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink
from edge_agent.training.trainers.litert import LiteRTTrainer
from edge_agent.training.work_kinds import work_of
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import EVALUATE, TRAIN, Checkpoint, TrainConfig
from fleet_model.weights import read_weights

TINY = Path(__file__).parents[3] / "data" / "tiny_bundle"
# The writer of bags draws darkness 0 to 199 by the number of the frame: dark is a circle.
LABELLED = ["circle"] * 100 + ["star"] * 100
UNLABELLED = [""] * 200


@pytest.fixture
def robot(tmp_path, bags):
    """Return what answers a request as an agent does, and what its status says then."""
    store = DirectoryStore(tmp_path / "store")
    store.publish(TINY, "stable", TINY)
    trainer = store.latest("stable").manifest.trainer
    bag = bags.drive(tmp_path / "r1", LABELLED + UNLABELLED)
    store.bytes_down = 0

    def answer(weights, kind=TRAIN, **examples):
        settings = AgentSettings(
            server=ServerLink(address="localhost:1"),
            state=tmp_path / "state",
            examples=ExampleSettings(paths=(bag,), label_topic=bags.LABELS, **examples),
        )
        settings.state.mkdir(exist_ok=True)
        file = StatusFile(settings.state, "litert")
        models = Models(tmp_path / "models")
        part: Any = Participation(settings, models, store, file, Pulse(lambda: 0), News(store))
        part._training._fit = in_this_process
        try:
            update = part._work(
                RobotRequest(
                    deadline_s=60.0,
                    run="run",
                    round=1,
                    kind=kind,
                    checkpoint=Checkpoint(version=1, weights=weights),
                    config=TrainConfig(epochs=20),
                    trainer=trainer.sha256,
                    trainer_bytes=trainer.size_bytes,
                )
            )
        finally:
            part.close()
        return update, read_status(settings.state)

    return answer


def test_a_fleet_model_that_knows_the_robot_s_frames_labels_the_others(robot):
    start = read_weights(TINY / "weights.safetensors")
    plain, status = robot(start)
    assert not [name for name in plain.metrics if name.startswith("pseudo_")]
    assert status["pseudo_labels"] == {}
    learned = {name: start[name] + by for name, by in plain.weights.items()}

    update, status = robot(learned, pseudo_labels=True, pseudo_weight=0.25)
    told = status["pseudo_labels"]
    assert told["weight"] == 0.25
    assert 100 < told["unlabelled"] < 200  # a fifth of the time is kept for measuring
    assert 0 < told["examples"] <= told["unlabelled"]
    assert sum(told["counts"].values()) == told["examples"]
    assert update.num_examples == pytest.approx(plain.num_examples + told["examples"] / 4, abs=1)
    assert update.metrics["held_out"] == plain.metrics["held_out"]
    assert "square" in told["unsure"]  # it was never measured
    assert any(line.startswith(f"pseudo   {told['examples']} of ") for line in _words(status))

    measured, _ = robot(learned, EVALUATE, pseudo_labels=True)
    assert measured.num_examples == plain.metrics["held_out"]


def test_a_model_that_knows_nothing_labels_nothing(robot):
    start = read_weights(TINY / "weights.safetensors")
    zeros = {name: 0 * tensor for name, tensor in start.items()}
    update, status = robot(zeros, pseudo_labels=True)
    assert update.metrics["pseudo_examples"] == 0
    assert status["pseudo_labels"]["counts"] == {}


def in_this_process(job, _):
    """Do what the training process does, without the seconds that it takes to start."""
    assert ("pseudo" in job.examples.options) <= (job.kind == TRAIN)  # nothing else looks at them
    return work_of(job.kind)(LiteRTTrainer(job.spec, job.directory), job)


def _words(status):
    return list(status_lines({**status, "paused": "", "labels": {}}))
