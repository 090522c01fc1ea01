"""From a train request to a job: which trainer, whose examples, which order."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cloud_server.state.model_store import DirectoryStore
from edge_agent.models.deploy import Models
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink, TrainSettings
from edge_agent.training.feature_cache import limit_from_environment
from edge_agent.training.local_training import LocalTraining
from edge_agent.training.trainers.hardware import threads_from_environment
from edge_agent.training.training_process import TrainingProcess, environment_of
from fleet_model.errors import BundleError, TrainingError, UpdateError
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import EVALUATE, PROFILE, TRAIN, Checkpoint, TrainConfig
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

    def _request(seed=5, trainer=entry.sha256, trainer_bytes=entry.size_bytes) -> RobotRequest:
        return RobotRequest(
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

    def make(fit, paths=(), trainer="litert", spool=None, profile=True) -> LocalTraining:
        settings = AgentSettings(
            server=ServerLink(address="localhost:1"),
            state=tmp_path / "state",
            examples=ExampleSettings(paths=paths, held_out=0.25, label_topic="/l", spool=spool),
            training=TrainSettings(trainer=trainer, profile=profile),
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
    assert job.examples.name == "frames"
    assert job.examples.options["paths"] == ["/bags/1"]
    assert (job.examples.options["held_out"], job.examples.options["topic"]) == (0.25, "")


def test_a_robot_with_a_spool_learns_from_its_store_and_remembers_what_it_trained_on(
    training, request_for, tmp_path
):
    options = training(lambda job, _: job).answer(request_for(), "r1").examples.options
    assert options["kept"] == ""
    assert options["trained"] == str(tmp_path / "state" / "trained.json")
    job = training(lambda job, _: job, spool=tmp_path / "spool").answer(request_for(), "r1")
    assert job.examples.options["kept"] == str(tmp_path / "state" / "examples")


def test_only_what_a_robot_trains_on_counts_as_trained_on(
    training, request_for, image_folder, tmp_path
):
    folder = image_folder("frames", {"circle": 8, "square": 8})
    local = training(lambda job, _: job, paths=(folder,))
    for kind, trained in ((EVALUATE, False), (PROFILE, False), (TRAIN, True)):
        request = dataclasses.replace(request_for(), kind=kind)
        assert len(list(local.answer(request, "r1").examples.examples())) == 16
        assert (tmp_path / "state" / "trained.json").exists() == trained
        assert list((tmp_path / "state" / "known-frames").iterdir())


def test_a_profile_is_told_only_where_this_machine_has_said_so(training, request_for):
    asked = dataclasses.replace(request_for(), kind=PROFILE)
    assert training(lambda job, _: job).answer(asked, "r1").kind == PROFILE
    with pytest.raises(TrainingError, match=r"tells no profile: training\.profile = false"):
        training(lambda job, _: job, profile=False).answer(asked, "r1")
    assert not TrainSettings().profile


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
    assert update.metrics["framework_loaded"] == 0
    assert (tmp_path / "state" / "trained.json").exists()


@pytest.fixture
def files_of_a_round(tmp_path, monkeypatch, training, request_for):
    """Return a runner of one round in a new child, and the frame files that it opened or mapped.

    The child hears of every open and mapping of its own process: Python imports `sitecustomize`
    before anything else.
    """
    listener, log = tmp_path / "listener", tmp_path / "heard.log"
    listener.mkdir()
    (listener / "sitecustomize.py").write_text(
        f"""
import os, sys

log = os.open({str(log)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def hear(event, arguments):
    name = arguments[0] if event in ("open", "mmap.__new__") else ""
    if event == "mmap.__new__" and name >= 0:
        name = os.readlink(f"/proc/self/fd/{{name}}")
    if isinstance(name, (str, bytes)) and name:
        os.write(log, os.fsencode(name) + b"\\n")

sys.addaudithook(hear)
"""
    )
    monkeypatch.syspath_prepend(listener)

    def run(*paths):
        log.unlink(missing_ok=True)
        with TrainingProcess(idle_s=30) as process:
            update = training(process.fit, paths=paths).answer(request_for(), "r1")
        names = log.read_text().splitlines()
        assert any(name.endswith(".jsonl") for name in names)  # it hears
        endings = (".png", ".mcap", ".db3")
        return update, sorted(Path(name).name for name in names if name.endswith(endings))

    return run


def test_a_round_whose_frames_are_all_known_opens_and_maps_none_of_their_files(
    files_of_a_round, image_folder, bags, tmp_path, picture_bytes
):
    folder = image_folder("frames", {"circle": 12, "square": 12, "star": 12})
    bags.LABELS = "/l"
    bag = bags.drive(tmp_path / "r1", ["circle", "square", "star"] * 8)
    first, opened = files_of_a_round(folder, bag)
    assert set(opened) == {f"{number:03d}.png" for number in range(12)} | {"r1.mcap"}
    assert first.num_examples + first.metrics["held_out"] > 50
    second, opened = files_of_a_round(folder, bag)
    assert opened == []
    assert second.num_examples == first.num_examples
    assert all(np.array_equal(second.weights[name], first.weights[name]) for name in WEIGHTS)
    (folder / "star" / "new.png").write_bytes(picture_bytes(99, ".png"))
    third, opened = files_of_a_round(folder, bag)
    assert set(opened) == {"new.png"}
    assert third.num_examples + third.metrics["held_out"] > second.num_examples


def test_an_agent_tells_its_training_process_how_much_it_may_cache(monkeypatch):
    settings = TrainSettings(cache_mb=3.5, threads=1)
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    assert (limit_from_environment(), threads_from_environment()) == (3_500_000, 1)
