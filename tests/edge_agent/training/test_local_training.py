"""From a train request to a job: which trainer, whose examples, which order."""

from pathlib import Path

import numpy as np
import pytest

from cloud_server.state.model_store import DirectoryStore
from edge_agent.models.deploy import Models
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink, TrainSettings
from edge_agent.training.local_training import LocalTraining, open_store
from edge_agent.training.training_process import TrainingProcess
from fleet_model.errors import BundleError, UpdateError
from fleet_model.protocol.wire import TrainRequest
from fleet_model.types import Checkpoint, TrainConfig
from fleet_model.weights import read_weights

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"
WEIGHTS = read_weights(TINY / "weights.safetensors")


@pytest.fixture
def store(tmp_path):
    store = DirectoryStore(tmp_path / "store")
    store.publish(TINY, "stable", TINY)
    return store


@pytest.fixture
def request_for(store):
    entry = store.latest("stable").manifest.trainer

    def _request(seed=5, trainer=entry.sha256, trainer_bytes=entry.size_bytes) -> TrainRequest:
        return TrainRequest(
            deadline_s=60.0,
            run="run",
            round=1,
            checkpoint=Checkpoint(version=4, weights=WEIGHTS),
            config=TrainConfig(epochs=2, batch_size=4, seed=seed),
            trainer=trainer,
            trainer_bytes=trainer_bytes,
        )

    return _request


@pytest.fixture
def training(store, tmp_path):
    """Return a maker of trainings; `fit` is the process's, or only looks at the job."""

    def make(fit, paths=(), trainer="litert", spool=None) -> LocalTraining:
        settings = AgentSettings(
            server=ServerLink(address="localhost:1"),
            state=tmp_path / "state",
            examples=ExampleSettings(paths=paths, held_out=0.25, label_topic="/l", spool=spool),
            training=TrainSettings(trainer=trainer),
        )
        return LocalTraining(settings, Models(tmp_path / "models"), store, fit)

    return make


def test_the_job_holds_what_request_and_settings_say(training, request_for):
    job = training(lambda job, _: job, paths=(Path("/bags/1"),)).answer(request_for(), "r1")
    assert (job.trainer, job.checkpoint.version, job.config.epochs) == ("litert", 4, 2)
    assert sorted(path.name for path in job.directory.iterdir()) == [
        "features",
        "trainer.json",
        "trainer.tflite",
        "trunk.tflite",
    ]
    assert job.examples.factory == "edge_agent.training.local_training:open_store"
    assert job.examples.arguments["paths"] == ["/bags/1"]
    assert job.examples.arguments["labels"] == ["circle", "square", "star"]
    assert (job.examples.arguments["held_out"], job.examples.arguments["topic"]) == (0.25, "")


def test_a_robot_with_a_spool_learns_from_its_store_and_remembers_what_it_trained_on(
    training, request_for, tmp_path
):
    arguments = training(lambda job, _: job).answer(request_for(), "r1").examples.arguments
    assert arguments["kept"] == ""
    assert arguments["trained"] == str(tmp_path / "state" / "trained.json")
    job = training(lambda job, _: job, spool=tmp_path / "spool").answer(request_for(), "r1")
    assert job.examples.arguments["kept"] == str(tmp_path / "state" / "examples")


def test_a_training_may_take_as_long_as_the_round_stays_open(training, request_for):
    left_s = training(lambda _, seconds: seconds).answer(request_for(), "r1")
    assert 50 < left_s < 60  # what fetching the trainer took is gone


def test_robots_shuffle_apart_each_always_in_the_same_way(training, request_for):
    local = training(lambda job, _: job.config.seed)
    seeds = [local.answer(request_for(seed), name) for seed in (5, 6) for name in ("r1", "r2")]
    assert len(set(seeds)) == 4
    assert local.answer(request_for(5), "r1") == seeds[0]


def test_a_request_that_names_no_trainer_is_refused(training, request_for):
    for broken in (request_for(trainer="newest"), request_for(trainer_bytes=-1)):
        with pytest.raises(UpdateError, match="the message names trainer"):
            training(lambda job, _: job).answer(broken, "r1")


def test_a_trainer_of_another_kind_is_a_bundle_error(training, request_for):
    with pytest.raises(BundleError, match=r"set training\.trainer to one of: keras, litert"):
        training(lambda job, _: job, trainer="torch").answer(request_for(), "r1")


def test_real_frames_become_an_update_in_the_training_process(
    training, request_for, image_folder, tmp_path
):
    folder = image_folder("frames", {"circle": 12, "square": 12, "star": 12})
    with TrainingProcess(idle_s=30) as process:
        update = training(process.fit, paths=(folder,)).answer(request_for(), "r1")
    assert update.base_version == 4
    assert update.num_examples + update.metrics["held_out"] == 36
    assert update.weights.keys() == WEIGHTS.keys()
    assert any(np.abs(tensor).max() > 0 for tensor in update.weights.values())
    assert update.metrics["tensorflow_loaded"] == 0
    assert (tmp_path / "state" / "trained.json").exists()


def test_the_store_opens_from_json_values(image_folder):
    folder = image_folder("frames", {"circle": 5, "square": 5})
    store = open_store(
        [str(folder)], topic="", label_topic="", labels=["circle", "square"], held_out=0.2,
        tolerance_s=0.1,
    )  # fmt: skip
    assert {example.label for example in store.examples()} == {"circle", "square"}
