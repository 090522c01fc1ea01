"""FedSA-LoRA on a robot: a version's A with the robot's own B, in LiteRT, where it is better."""

import json
import logging
import shutil
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))
from moody_workload import TINY

from cloud_server.state.model_store import DirectoryStore
from edge_agent.examples.source import SourceSpec
from edge_agent.models.deploy import Models
from edge_agent.models.install import Installer
from edge_agent.models.personal.tensors import FOLDER, keep_own, key_of, put_beside, with_own
from edge_agent.models.predict import run_predict
from edge_agent.models.predict_options import PredictOptions
from edge_agent.models.trial_process import source_fields
from edge_agent.robot.model_settings import InstallSettings
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink
from edge_agent.serving.served import served_models
from edge_agent.training.trainers.litert import LiteRTTrainer
from edge_agent.training.training_job import TrainingJob
from edge_agent.training.work_kinds import work_of
from fleet_model.adapters.spec import LoraSpec
from fleet_model.bundle import MANIFEST, TRAINER, TrainerSpec, entry_of_file, parse_trainer
from fleet_model.engine import StagedModel, TFLiteEngine, open_engine
from fleet_model.errors import BundleError
from fleet_model.personal.choice import OWN_TENSORS, PersonalChoice, read_personal, write_personal
from fleet_model.personal.tensors import ADDED_TO, overlaid
from fleet_model.signatures import BASE, WEIGHTS
from fleet_model.types import EVALUATE, TRAIN, Checkpoint, TrainConfig, Update
from fleet_model.weights import read_weights, write_weights

KERNEL, BIAS = "head/kernel", "head/bias"
A, B, RESIDUAL = f"{KERNEL}.lora_a", f"{KERNEL}.lora_b", f"{KERNEL}.lora_residual"
RANK, ALPHA, SCALE = 2, 3.0, 1.5
TRAINED = read_weights(TINY / WEIGHTS)
RANDOM = np.random.default_rng(5)
W0 = np.random.default_rng(2).normal(size=(8, 3)).astype(np.float32)
# Of plain pictures: with this bias a third of them is given each label.
MEAN_FEATURES = np.array([0.56, 0.02, 0.32, 0.01, 0.04, 0.17, 0.08, 0.40], np.float32)
SHARED = {
    # With the first column of A, an own B can swap the first two labels exactly.
    A: np.stack([W0[:, 0] - W0[:, 1], RANDOM.normal(size=8)], axis=1).astype(np.float32),
    B: np.zeros((RANK, 3), np.float32),
    BIAS: -MEAN_FEATURES @ W0,
}
SWAPPING = {
    B: np.array([[-1, 1, 0], [0, 0, 0]], np.float32) / np.float32(SCALE),
    BIAS: SHARED[BIAS][[1, 0, 2]],
}
ANY = {B: RANDOM.normal(size=(RANK, 3)).astype(np.float32)}
PICTURE = {"image": np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.float32)}


def by_hand(weights):
    """Return W0 + alpha / rank * (A B + R), summed number by number in float64."""
    a, b = weights[A].astype(np.float64), weights[B].astype(np.float64)
    change = np.zeros(W0.shape)
    for row in range(8):
        for column in range(3):
            change[row, column] = sum(a[row, k] * b[k, column] for k in range(RANK))
    return W0.astype(np.float64) + SCALE * (change + weights.get(RESIDUAL, 0.0))


def made(folder, version=1, shared=SHARED, alpha=ALPHA):
    """Make the tiny bundle and its trainer as a server with adapters on the head does."""
    folder = shutil.copytree(TINY, folder)
    write_weights(folder / BASE, {KERNEL: W0})
    write_weights(folder / WEIGHTS, shared)
    trainer = json.loads((folder / TRAINER).read_text())
    adapter = LoraSpec(rank=RANK, alpha=alpha, targets={KERNEL: W0.shape})
    base = entry_of_file(folder / BASE).model_dump()
    trainer |= {
        "tensors": {name: {"shape": SHARED[name].shape} for name in (A, B, BIAS)},
        "files": {**trainer["files"], BASE: base},
        "parts": {kind: [*names, BASE] for kind, names in trainer["parts"].items()},
        "adapter": adapter.model_dump(),
        "critical": ["adapter"],
    }
    (folder / TRAINER).write_text(json.dumps(trainer))
    head, kernel = (folder / "head.tflite").read_bytes(), by_hand(shared).astype(np.float32)
    for was, now in ((TRAINED[KERNEL].T, kernel.T), (TRAINED[BIAS], shared[BIAS])):
        content = np.ascontiguousarray(was).tobytes()
        assert head.count(content) == 1
        head = head.replace(content, np.ascontiguousarray(now).tobytes())
    (folder / "head.tflite").write_bytes(head)
    manifest = json.loads((folder / MANIFEST).read_text()) | {"version": version}
    manifest["trainer"] = entry_of_file(folder / TRAINER).model_dump()
    for name in (WEIGHTS, "head.tflite"):
        manifest["files"][name] = entry_of_file(folder / name).model_dump()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


class Robot:
    """A robot without an agent's loop: what installs, and what chooses what of its own runs."""

    def __init__(self, folder, frames=None, precision="fp32"):
        self.folder, self.store = folder, DirectoryStore(folder / "store")
        self.settings = AgentSettings(
            server=ServerLink(address="localhost:1"),
            state=folder / "state",
            examples=ExampleSettings(paths=(frames,) if frames else (), held_out=0.5),
            engine={"precision": precision},
            install=InstallSettings(probation_s=1000, timeout_s=600, slower=1000),
        )
        self.models = Models(self.settings.state / "models")
        self.own = self.settings.state / FOLDER
        self.restart()

    def restart(self):
        self.installer = Installer(self.settings, self.models, threading.Event())
        self.installer.begin()

    def publish(self, version=1, **options):
        directory = made(self.folder / f"made-{version}", version, **options)
        self.spec = parse_trainer((directory / TRAINER).read_bytes())
        self.store.publish(directory, "stable", directory)
        self.offer = self.store.latest("stable")
        return directory

    def keep(self, own):
        start = Checkpoint(version=1, weights={**SHARED, **own})
        still = {name: np.zeros_like(w) for name, w in SHARED.items()}
        update = Update(robot="", base_version=1, weights=still, num_examples=1, num_steps=1)
        return keep_own(self.own, self.spec, tuple(own), start, update)

    def install(self):
        """Install the version of now untried, with own tensors beside it; return (folder, file)."""
        self.name = self.models.stage(self.store, self.offer, self.settings.engine.precision)
        self.models.activate(self.name)
        self.file, self.why = put_beside(
            self.models, self.store, self.name, self.offer.manifest, self.own
        )
        return self.models.folder(self.name), self.file

    @property
    def choice(self):
        return read_personal(self.models.current.resolve())


def own_tensors(file, precision="fp32"):
    return PersonalChoice(precision=precision, uses=(OWN_TENSORS,), tensors=file)


def logits(bundle, precision="fp32", personal=None):
    return TFLiteEngine(bundle, precision, personal=personal).run(PICTURE)["logits"]


def test_the_graph_takes_w0_and_the_product_of_the_versions_a_and_the_robots_b(tmp_path):
    robot = Robot(tmp_path)
    robot.publish(shared={**SHARED, RESIDUAL: RANDOM.normal(size=W0.shape).astype(np.float32)})
    robot.keep(ANY)
    bundle, file = robot.install()
    found = overlaid(bundle, robot.offer.manifest, robot.spec, file)
    shared = read_weights(bundle / WEIGHTS)
    assert list(found) == list(robot.spec.variables) == [KERNEL, BIAS]
    expected = by_hand({**shared, **ANY})
    assert found[KERNEL].dtype == np.float32
    np.testing.assert_allclose(found[KERNEL], expected, rtol=1.2e-7)
    assert np.abs(found[KERNEL] - by_hand(shared)).max() > 0.1
    assert found[BIAS].tobytes() == SHARED[BIAS].tobytes()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_litert_answers_what_the_merged_kernel_answers_on_the_published_trunk(tmp_path, precision):
    robot = Robot(tmp_path, precision=precision)
    robot.publish()
    own = {**ANY, BIAS: np.array([0.25, -1.0, 0.5], np.float32)}
    robot.keep(own)
    bundle, file = robot.install()
    write_personal(bundle, own_tensors(file, precision))
    engine = open_engine(bundle, precision)
    assert engine.runs == "the model with own tensors"
    *trunk, _ = robot.offer.manifest.engines[precision]
    features = StagedModel([bundle / one for one in trunk], engine.workload.task.inputs, None)
    (row,) = features(PICTURE).values()
    expected = row.astype(np.float64) @ by_hand({**SHARED, **own}) + own[BIAS]
    np.testing.assert_allclose(engine.run(PICTURE)["logits"], expected, atol=1e-4)


def test_an_own_b_that_equals_the_shared_one_gives_the_published_kernel_bit_for_bit(tmp_path):
    robot = Robot(tmp_path)
    shared = {**SHARED, **ANY}
    directory = robot.publish(shared=shared)
    robot.keep(ANY)
    bundle, file = robot.install()
    kernel = overlaid(bundle, robot.offer.manifest, robot.spec, file)[KERNEL]
    assert np.ascontiguousarray(kernel.T).tobytes() in (directory / "head.tflite").read_bytes()
    np.testing.assert_allclose(
        logits(bundle, personal=own_tensors(file)), logits(bundle), atol=1e-5
    )


def test_the_next_version_runs_the_same_b_with_its_own_a(tmp_path):
    robot = Robot(tmp_path)
    robot.publish()
    robot.keep(ANY)
    newer = {**SHARED, A: SHARED[A] + RANDOM.normal(size=(8, RANK)).astype(np.float32)}
    robot.publish(2, shared=newer)
    bundle, file = robot.install()
    found = overlaid(bundle, robot.offer.manifest, robot.spec, file)
    np.testing.assert_allclose(found[KERNEL], by_hand({**newer, **ANY}), rtol=1.2e-7)


@pytest.mark.parametrize("spoil", ["gone", "damaged", "another shape"])
def test_without_what_adapters_add_to_the_shared_model_answers(tmp_path, caplog, spoil):
    robot = Robot(tmp_path)
    robot.publish()
    robot.keep(ANY)
    bundle, file = robot.install()
    before = logits(bundle)
    write_personal(bundle, own_tensors(file))
    (bundle / ADDED_TO).unlink()
    if spoil == "damaged":
        (bundle / ADDED_TO).write_bytes(b"damaged")
    elif spoil == "another shape":
        write_weights(bundle / ADDED_TO, {KERNEL: W0[:, :2].copy()})
    with pytest.raises(BundleError, match=r"\.base\.safetensors"):
        logits(bundle, personal=own_tensors(file))
    with caplog.at_level(logging.WARNING):
        assert open_engine(bundle).run(PICTURE)["logits"].tobytes() == before.tobytes()
    assert "the shared model answers, without this robot's own part" in caplog.text


def published_again(robot, change):
    """Publish version 2 with `change(trainer, manifest)` of what version 1 says; install it."""
    directory = robot.publish()
    robot.keep(ANY)
    trainer = json.loads((directory / TRAINER).read_text())
    manifest = json.loads((directory / MANIFEST).read_text()) | {"version": 2}
    change(trainer, manifest)
    (directory / TRAINER).write_text(json.dumps(trainer))
    manifest["trainer"] = entry_of_file(directory / TRAINER).model_dump()
    (directory / MANIFEST).write_text(json.dumps(manifest))
    robot.store.publish(directory, "stable", directory)
    robot.offer = robot.store.latest("stable")
    robot.install()


def test_a_trainer_that_names_no_base_is_told(tmp_path):
    def change(trainer, _):
        del trainer["files"][BASE]
        trainer["parts"] = {"litert": trainer["parts"]["litert"][:-1]}

    robot = Robot(tmp_path)
    published_again(robot, change)
    assert robot.why == (
        "own tensors cannot run: the trainer of version 2 has adapters, and no base.safetensors"
    )


def test_what_has_no_graph_for_litert_is_told_as_that(tmp_path):
    """As of a whole model, of which a server publishes no weights for robots either."""

    def change(trainer, manifest):
        del trainer["parts"]["litert"]
        del manifest["files"][WEIGHTS]

    robot = Robot(tmp_path)
    published_again(robot, change)
    assert robot.why == (
        "own tensors cannot run: what is trained of version 2 cannot run by LiteRT"
    )


def test_a_b_of_another_w0_or_another_scale_is_dropped(tmp_path, caplog):
    robot = Robot(tmp_path)
    robot.publish()
    robot.keep(ANY)
    names, start = (B,), Checkpoint(version=1, weights=SHARED)
    assert with_own(robot.own, robot.spec, names, start).weights[B].tobytes() == ANY[B].tobytes()
    fields = robot.spec.model_dump(mode="json")
    fields["files"][BASE]["sha256"] = "ab" * 32
    other = TrainerSpec.model_validate(fields)
    fields = robot.spec.model_dump(mode="json")
    fields["adapter"]["alpha"] = 2 * ALPHA
    longer = TrainerSpec.model_validate(fields)
    assert len({key_of(robot.spec), key_of(other), key_of(longer)}) == 3
    robot.publish(2, alpha=2 * ALPHA)
    robot.install()
    assert robot.why == "own tensors are of another trunk, or of other adapters"
    with caplog.at_level(logging.WARNING):
        assert with_own(robot.own, longer, names, start) is start
    assert "dropped: the trunk, or what adapters add to, is another one now" in caplog.text


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return plain pictures, each in the folder of the label that the shared model gives it."""
    folder = tmp_path_factory.mktemp("plain")
    engine, random = TFLiteEngine(made(folder / "bundle")), np.random.default_rng(3)
    for index in range(60):
        picture = np.full((32, 32, 3), random.integers(0, 256, 3), np.uint8)
        answer = engine.run({"image": picture.astype(np.float32)})["logits"]
        into = folder / "frames" / engine.workload.labels[int(answer.argmax())]
        into.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(into / f"{index:03d}.png"), picture[..., ::-1])
    return folder / "frames"


@pytest.fixture
def swapped(plain, tmp_path):
    """Return the same pictures, of which two labels are called by each other's name."""
    folder = tmp_path / "swapped"
    for label, name in (("circle", "square"), ("square", "circle"), ("star", "star")):
        shutil.copytree(plain / label, folder / name)
    return folder


def test_they_run_where_they_are_better_in_predict_serving_and_the_next_trial(
    tmp_path, swapped, capsys
):
    robot = Robot(tmp_path, swapped)
    robot.publish()
    robot.keep(SWAPPING)
    assert robot.installer.follow(robot.store, robot.offer) == ""

    choice = robot.choice
    assert (choice.uses, choice.personal) == ((OWN_TENSORS,), 1.0)
    assert choice.shared < 0.7
    current = robot.models.current.resolve()
    run_predict(PredictOptions(bundle=current, path=swapped, json=True), sys.stdout)
    told = json.loads(capsys.readouterr().out)["summary"]
    assert (told["runs"], told["accuracy"]) == (choice.words, 1.0)
    parameters = served_models(open_engine(current), "model", "fp32").metadata("model", "")
    assert parameters["parameters"]["runs"] == "the model with own tensors"
    # The next version is compared with what runs, and runs with the same B.
    robot.publish(2)
    assert robot.installer.follow(robot.store, robot.offer) == ""
    assert robot.installer.last.before == robot.installer.last.after == 1.0
    assert robot.choice.uses == (OWN_TENSORS,)


def test_where_they_are_no_better_the_shared_model_runs_and_the_reason_is_told(tmp_path, plain):
    robot = Robot(tmp_path, plain)
    robot.publish()
    robot.keep(SWAPPING)
    assert robot.installer.follow(robot.store, robot.offer) == ""
    assert (robot.choice.uses, robot.choice.shared) == ((), 1.0)
    assert robot.choice.personal < 0.7
    assert robot.choice.words.endswith("this robot's own part is not better")


def test_what_a_round_has_kept_runs_and_is_worth_what_an_evaluation_says(tmp_path, swapped):
    robot = Robot(tmp_path, swapped)
    directory = robot.publish()
    job = TrainingJob(
        trainer="litert",
        spec=robot.spec,
        directory=directory,
        examples=SourceSpec(**source_fields(robot.settings)),
        checkpoint=Checkpoint(version=1, weights=SHARED),
        config=TrainConfig(epochs=30, batch_size=4, learning_rate=0.05),
        personal=(B, BIAS),
        own=robot.own,
    )
    trainer = LiteRTTrainer(robot.spec, directory)
    sent = work_of(TRAIN)(trainer, job)
    assert list(sent.weights) == [A]
    (kept,) = robot.own.iterdir()
    own = read_weights(kept)
    assert own.keys() == {B, BIAS}
    assert own[B].any()

    assert robot.installer.follow(robot.store, robot.offer) == ""
    measured = work_of(EVALUATE)(trainer, job)
    assert measured.weights == {}
    choice = robot.choice
    assert choice.uses == (OWN_TENSORS,)
    assert choice.examples == measured.num_examples
    assert choice.personal == pytest.approx(measured.metrics["accuracy"], abs=1e-6)
    assert choice.personal > choice.shared + 0.2
