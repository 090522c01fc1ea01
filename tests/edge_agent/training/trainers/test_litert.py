import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from edge_agent.examples.source import SourceSpec
from edge_agent.training.trainers.litert import LiteRTTrainer
from edge_agent.training.training_process import TrainingJob, TrainingProcess
from fleet_model.errors import TrainingError
from fleet_model.types import TrainConfig

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]  # only to export what it trains


def test_it_learns_from_pictures(head, pictures):
    trainer = LiteRTTrainer(head.spec, head.directory)
    config = TrainConfig(epochs=20, learning_rate=0.001)
    update = trainer.fit(head.checkpoint, pictures(96).examples(), config)
    assert update.num_examples == 72
    assert update.metrics["held_out"] == 24
    assert update.metrics["loss_after"] < update.metrics["loss_before"] / 2
    assert update.metrics["accuracy_after"] > 0.8
    assert update.weights.keys() == head.checkpoint.weights.keys()
    assert {tensor.dtype for tensor in update.weights.values()} == {np.dtype(np.float32)}


def test_a_frame_passes_the_trunk_once_for_all_rounds(head, pictures):
    trainer, some = LiteRTTrainer(head.spec, head.directory), pictures(24)
    rounds = [
        trainer.fit(head.checkpoint, some.examples(), TrainConfig(epochs=2)) for _ in range(3)
    ]
    assert some.decoded == 24
    for name, tensor in rounds[0].weights.items():
        assert np.array_equal(tensor, rounds[2].weights[name])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_round_repeats_bit_for_bit_in_a_new_trainer(head, pictures, threads):
    config = TrainConfig(epochs=3, proximal_mu=0.01, clip_norm=1.0)
    one, other = (
        LiteRTTrainer(head.spec, head.directory, num_threads=threads).fit(
            head.checkpoint, pictures(40).examples(), config
        )
        for _ in range(2)
    )
    assert all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_the_gradient_of_a_padded_batch_is_that_of_its_real_rows(head, pictures):
    """Against a batch that says the same thing by repeating rows, without any padding."""
    machine = LiteRTTrainer(head.spec, head.directory)._learner
    rows = [
        machine.model.features(machine.workload.encode(example.raw).inputs)["features"]
        for example in pictures(8).examples()
    ]
    targets = np.arange(8, dtype=np.int32) % 4
    padded = np.zeros((32, *rows[0].shape), np.float32)
    padded[:8] = rows
    weight = np.repeat(np.float32([1, 0]), [8, 24])
    padded_targets = np.concatenate([targets, np.zeros(24, np.int32)])
    weights = head.checkpoint.weights
    loss, gradients = machine.model.gradient(
        weights, {"features": padded}, {"class": padded_targets}, weight
    )
    repeated, ones = np.concatenate([rows] * 4), np.ones(32, np.float32)
    again, expected = machine.model.gradient(
        weights, {"features": repeated}, {"class": np.tile(targets, 4)}, ones
    )
    assert loss == pytest.approx(again, rel=1e-5)
    for name, gradient in expected.items():
        assert gradients[name] == pytest.approx(gradient, abs=1e-5)


def test_a_scope_whose_gradient_is_not_exported_names_the_other_trainer(whole_model):
    with pytest.raises(
        TrainingError, match=r"'all' is not exported .* set trainer to one of keras on"
    ):
        LiteRTTrainer(whole_model.spec, whole_model.directory)


def test_a_graph_of_another_batch_size_is_refused(head):
    spec = head.spec.model_copy(update={"batch_size": 16})
    with pytest.raises(
        TrainingError, match=r"features has shape \(32, 1280\), .* trainer.json say \(16, 1280\)"
    ):
        LiteRTTrainer(spec, head.directory)


def test_a_graph_without_the_signatures_is_refused(head, tmp_path):
    for name in ("trunk.tflite", "trainer.tflite"):
        (tmp_path / name).write_bytes((head.directory / "trunk.tflite").read_bytes())
    with pytest.raises(TrainingError, match=r"trainer\.tflite has no signature 'gradient'"):
        LiteRTTrainer(head.spec, tmp_path)


def test_it_never_imports_tensorflow(head):
    """In a process of its own, with TensorFlow made impossible to import."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['tensorflow', 'keras', 'flwr', 'torch']))\n"
        "from pathlib import Path\n"
        "from edge_agent.training.trainers.litert import LiteRTTrainer\n"
        "from fleet_model.bundle import TrainerSpec\n"
        "spec = TrainerSpec.model_validate_json(sys.argv[1])\n"
        "LiteRTTrainer(spec, Path(sys.argv[2]))\n"
    )
    arguments = [head.spec.model_dump_json(), str(head.directory)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)


def test_order_of_tensors_follows_names_not_positions(head, pictures):
    """The graph numbers tensors as trainer.json lists them; the checkpoint may list otherwise."""
    turned = dict(reversed(head.checkpoint.weights.items()))
    checkpoint = dataclasses.replace(head.checkpoint, weights=turned)
    trainer, some = LiteRTTrainer(head.spec, head.directory), pictures(24)
    one = trainer.fit(head.checkpoint, some.examples(), TrainConfig())
    other = trainer.fit(checkpoint, some.examples(), TrainConfig())
    assert all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_a_warm_training_process_has_no_tensorflow_and_keeps_its_features(
    head, pictures, request, monkeypatch
):
    monkeypatch.syspath_prepend(request.config.rootpath)
    factory = f"{pictures.__module__}:{pictures.__qualname__}"
    job = TrainingJob(
        trainer="litert",
        spec=head.spec,
        directory=head.directory,
        examples=SourceSpec(name=factory, options={"count": 96}),
        checkpoint=head.checkpoint,
        config=TrainConfig(epochs=2, learning_rate=0.001, proximal_mu=0.01),
    )
    with TrainingProcess() as process:
        first = process.fit(job)
        gone = SourceSpec(name=factory, options={"count": 96, "gone": True})
        second = process.fit(dataclasses.replace(job, examples=gone))
    here = LiteRTTrainer(head.spec, head.directory).fit(
        head.checkpoint, pictures(96).examples(), job.config
    )
    for name, tensor in here.weights.items():
        assert np.array_equal(first.weights[name], tensor)
        assert np.array_equal(second.weights[name], tensor)
    assert first.metrics["framework_loaded"] == 0
    assert first.metrics["peak_child_mb"] < 200
    assert second.metrics["unreadable"] == 0
