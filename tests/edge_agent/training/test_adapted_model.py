import dataclasses

import numpy as np
import pytest

from edge_agent.training.adapted_model import adapted, dropped, started
from edge_agent.training.trainer import Learner, evaluate, fit
from fleet_model.adapters.lora import first_factors
from fleet_model.adapters.spec import LoraSpec
from fleet_model.bundle import TensorSpec, TrainerSpec, WorkloadSpec
from fleet_model.errors import TrainingError
from fleet_model.types import Checkpoint, Encoded, Example, Target, TrainConfig
from fleet_model.weights import write_weights
from fleet_model.workload import build_workload

LORA = LoraSpec(kind="lora", rank=2, alpha=4, targets={"head/kernel": (6, 3)})


class Softmax:
    """A dense layer and a softmax, in NumPy."""

    def features(self, inputs):
        return inputs

    def outputs(self, weights, features):
        return {"logits": features["features"] @ weights["head/kernel"] + weights["head/bias"]}

    def gradient(self, weights, features, targets, sample_weight):
        logits = self.outputs(weights, features)["logits"].astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        rows, share = np.arange(len(logits)), sample_weight / sample_weight.sum()
        loss = -(share * logs[rows, targets["class"]]).sum()
        slope = np.exp(logs)
        slope[rows, targets["class"]] -= 1
        slope *= share[:, None]
        kernel = (features["features"].T @ slope).astype(np.float32)
        return float(loss), {"head/kernel": kernel, "head/bias": slope.sum(0).astype(np.float32)}


class Numbers:
    """A workload of vectors."""

    def __init__(self, task):
        self.task = task

    def target(self, example):
        return Target(tensors={"class": np.int32("abc".index(example.label))})

    def encode(self, raw):
        return Encoded(inputs={"features": raw})

    def measure(self, outputs, targets):
        return {"accuracy": float((outputs["logits"].argmax(1) == targets["class"]).mean())}


@pytest.fixture
def learner(tmp_path):
    """Return a maker of learners of LORA, or of other adapters."""

    def make(lora=LORA):
        base = np.random.default_rng(5).normal(size=(6, 3)).astype(np.float32)
        write_weights(tmp_path / "base.safetensors", {"head/kernel": base})
        spec = TrainerSpec(
            workload=WorkloadSpec(name="numbers", config={}),
            trainable="head",
            tensors={
                **{name: TensorSpec(shape=shape) for name, shape in lora.factors.items()},
                "head/bias": TensorSpec(shape=(3,)),
            },
            batch_size=8,
            files={},
            parts={},
            adapter=lora,
        )
        images = WorkloadSpec(name="image-classifier", config={"labels": ["a", "b", "c"]})
        task = build_workload(images).task.model_copy(
            update={"inputs": {"features": TensorSpec(shape=(6,))}}
        )
        return Learner(spec, Numbers(task), adapted(spec, tmp_path, Softmax()))

    return make


def first(lora=LORA, **changes):
    return Checkpoint(
        version=3,
        weights={**first_factors(lora), "head/bias": np.zeros(3, np.float32), **changes},
    )


def examples(count=48):
    random = np.random.default_rng(1)
    for number in range(count):
        label = "abc"[number % 3]
        row = random.normal(size=6).astype(np.float32)
        row[number % 3] += 2
        yield Example(raw=row, key=f"{number:03}", label=label, held_out=number % 4 == 0)


CONFIG = TrainConfig(epochs=20, batch_size=20, learning_rate=0.1, momentum=0.5, seed=9)


def test_a_round_trains_the_factors_and_sends_them_alone(learner):
    update = fit(learner(), first(), examples(), CONFIG)
    assert set(update.weights) == {"head/kernel.lora_a", "head/kernel.lora_b", "head/bias"}
    assert all(tensor.any() for tensor in update.weights.values())
    short = fit(learner(), first(), examples(), dataclasses.replace(CONFIG, epochs=1))
    assert update.metrics["train_loss"] < 0.7 * short.metrics["train_loss"]


def test_the_loss_falls_as_its_gradients_say(learner):
    """Against finite differences of the loss, with both factors away from their start."""
    model, random = learner().model, np.random.default_rng(2)
    weights = {n: random.normal(size=t.shape) for n, t in first().weights.items()}
    rows = {"features": random.normal(size=(8, 6))}
    truth = {"class": random.integers(0, 3, 8)}
    weight = np.ones(8)
    _, slopes = model.gradient(weights, rows, truth, weight)
    for name, tensor in weights.items():
        direction = random.normal(size=tensor.shape)
        up, down = (
            model.gradient({**weights, name: tensor + by * direction}, rows, truth, weight)[0]
            for by in (1e-2, -1e-2)
        )
        assert (slopes[name] * direction).sum() == pytest.approx((up - down) / 2e-2, rel=2e-3)


def test_a_residual_of_the_checkpoint_counts_and_is_not_sent_back(learner):
    residual = np.random.default_rng(8).normal(size=(6, 3)).astype(np.float32)
    moved = first(**{"head/kernel.lora_residual": residual})
    update = fit(learner(), moved, examples(), CONFIG)
    assert "head/kernel.lora_residual" not in update.weights
    without = fit(learner(), first(), examples(), CONFIG)
    assert not np.array_equal(without.weights["head/bias"], update.weights["head/bias"])
    measured = evaluate(learner(), moved, examples())
    assert measured.metrics["accuracy"] == update.metrics["accuracy_before"]


def test_a_residual_does_not_stay_for_the_next_round(learner):
    one = learner()
    fit(
        one, first(**{"head/kernel.lora_residual": np.ones((6, 3), np.float32)}), examples(), CONFIG
    )
    again, fresh = (fit(which, first(), examples(), CONFIG) for which in (one, learner()))
    assert np.array_equal(again.weights["head/bias"], fresh.weights["head/bias"])


def test_a_residual_of_another_shape_is_refused(learner):
    wrong = first(**{"head/kernel.lora_residual": np.ones((3, 6), np.float32)})
    with pytest.raises(TrainingError, match=r"lora_residual has shape \(3, 6\), expected \(6, 3\)"):
        fit(learner(), wrong, examples(), CONFIG)


def test_dropout_repeats_bit_for_bit_and_differs_by_seed(learner):
    lora = LORA.model_copy(update={"dropout": 0.3})
    seeds = [fit(learner(lora), first(lora), examples(), c) for c in (
        CONFIG, CONFIG, dataclasses.replace(CONFIG, seed=10)
    )]  # fmt: skip
    plain = fit(learner(), first(), examples(), CONFIG)
    a = [one.weights["head/kernel.lora_a"] for one in (*seeds, plain)]
    assert np.array_equal(a[0], a[1])
    assert not np.array_equal(a[0], a[2])
    assert not np.array_equal(a[0], a[3])


def test_a_row_that_is_dropped_does_not_move_in_that_step(learner):
    lora = LORA.model_copy(update={"dropout": 0.5})
    one = learner(lora)
    b = np.float32([[1, 0, -1], [0, 2, 1]])
    config = dataclasses.replace(CONFIG, epochs=1, batch_size=64)
    update = fit(one, first(lora, **{"head/kernel.lora_b": b}), examples(), config)
    mask = dropped(one.spec, config.seed, 0)["head/kernel.lora_a"]
    assert np.array_equal(update.weights["head/kernel.lora_a"].any(1, keepdims=True), mask > 0)
    assert 0 < (mask > 0).sum() < len(mask)


def test_base_tensors_of_another_model_are_refused(learner, tmp_path):
    spec = learner().spec
    write_weights(tmp_path / "base.safetensors", {"head/kernel": np.ones((6, 4), np.float32)})
    with pytest.raises(TrainingError, match=r"base.safetensors: head/kernel has shape \(6, 4\)"):
        adapted(spec, tmp_path, Softmax())


def test_without_adapters_the_model_is_used_as_it_is(learner, tmp_path):
    spec, model = learner().spec.without_adapter(), Softmax()
    assert adapted(spec, tmp_path, model) is model
    assert started(model, {}) is model
    assert list(spec.tensors) == ["head/kernel", "head/bias"]
