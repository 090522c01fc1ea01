"""The shared loop, with softmax regression written in NumPy as its framework."""

import dataclasses
import logging
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.training import trainer
from edge_agent.training.feature_cache import FeatureCache
from edge_agent.training.trainer import Learner, evaluate, fit
from edge_agent.training.trainers.hardware import threads_from_environment
from fleet_model.bundle import Task, TensorSpec, TrainerSpec, WorkloadSpec
from fleet_model.errors import FrameError, TrainingError
from fleet_model.types import Checkpoint, Encoded, Example, Target, TrainConfig

pytestmark = pytest.mark.base

ROUND = TrainConfig(epochs=1, learning_rate=0.1)
FEATURES, LABELS, BATCH = 6, ("cup", "fork", "plate"), 4


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class Vectors:
    """A workload whose raw input is a vector."""

    class_bias = "head/bias"
    task = Task(
        inputs={"vector": TensorSpec(shape=(FEATURES,))},
        targets={"class": TensorSpec(shape=(), dtype="int32")},
        outputs={"logits": TensorSpec(shape=(len(LABELS),))},
        measures={"accuracy": "higher", "loss": "lower"},
        answer="class",
        classes=LABELS,
    )

    def __init__(self):
        self.encoded = 0

    def encode(self, raw):
        if raw is None:
            raise FrameError("frame 7: the picture is damaged")
        self.encoded += 1
        return Encoded(inputs={"vector": np.asarray(raw, np.float32)})

    def target(self, example):
        if example.label not in LABELS:
            raise FrameError(f"unknown label {example.label!r}")
        return Target(tensors={"class": np.array(LABELS.index(example.label), np.int32)})

    def measure(self, outputs, targets):
        logits, classes = outputs["logits"], targets["class"]
        rows = np.arange(len(classes))
        return {
            "accuracy": float(np.mean(logits.argmax(axis=-1) == classes)),
            "loss": float(-np.mean(log_softmax(logits)[rows, classes])),
        }


class SoftmaxRegression:
    """`Differentiable` in NumPy: logits = features @ kernel + bias."""

    def __init__(self):
        self.batches = []

    def features(self, inputs):
        return inputs

    def gradient(self, weights, features, targets, sample_weight):
        rows, classes = features["vector"], targets["class"]
        self.batches.append((len(rows), float(sample_weight.sum())))
        logs = log_softmax(self.outputs(weights, features)["logits"])
        total = max(float(sample_weight.sum()), 1e-6)
        chosen = np.eye(len(LABELS), dtype=np.float32)[classes]
        slope = (np.exp(logs) - chosen) * sample_weight[:, None] / np.float32(total)
        loss = -float((sample_weight * (chosen * logs).sum(-1)).sum()) / total
        return loss, {"head/kernel": rows.T @ slope, "head/bias": slope.sum(0)}

    def outputs(self, weights, features):
        return {"logits": features["vector"] @ weights["head/kernel"] + weights["head/bias"]}


def learner(batch_size=BATCH, **options):
    spec = TrainerSpec(
        workload=WorkloadSpec(name="vectors", config={}),
        trainable="head",
        tensors={
            "head/kernel": TensorSpec(shape=(FEATURES, len(LABELS))),
            "head/bias": TensorSpec(shape=(len(LABELS),)),
        },
        batch_size=batch_size,
        files={},
        parts={},
    )
    return Learner(spec, Vectors(), SoftmaxRegression(), **options)


def checkpoint(version=3):
    kernel = np.random.default_rng(5).normal(0, 0.1, (FEATURES, len(LABELS))).astype(np.float32)
    weights = {"head/kernel": kernel, "head/bias": np.zeros(len(LABELS), np.float32)}
    return Checkpoint(version=version, weights=weights)


def examples(count, held_out_every=0, seed=1):
    """Vectors that lean towards their label's axis."""
    random = np.random.default_rng(seed)
    for number in range(count):
        label = int(random.integers(len(LABELS)))
        raw = random.normal(0, 0.5, FEATURES) + 2 * np.eye(FEATURES)[label]
        held = bool(held_out_every) and number % held_out_every == 0
        yield Example(raw=raw, label=LABELS[label], key=f"bag/{number:04d}", held_out=held)


def same(one, other):
    return all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def length(update):
    return float(np.sqrt(sum((w.astype(np.float64) ** 2).sum() for w in update.weights.values())))


def test_a_correction_is_added_to_the_gradient_of_each_step():
    """Without momentum it moves the weights by -rate * correction in each of the steps."""
    config = TrainConfig(epochs=1, batch_size=40, learning_rate=0.5, momentum=0.0)
    by = {name: np.full(w.shape, 0.25, np.float32) for name, w in checkpoint().weights.items()}
    plain = fit(learner(), checkpoint(), examples(40), config)
    corrected = fit(learner(), checkpoint(), examples(40), config, by)
    assert corrected.num_steps == 1
    for name, change in corrected.weights.items():
        np.testing.assert_allclose(change, plain.weights[name] - 0.125, atol=1e-6)


def test_an_evaluation_measures_a_checkpoint_on_what_is_held_out_and_holds_no_weights():
    machine, start = learner(), checkpoint(version=9)
    before = fit(machine, start, examples(40, held_out_every=5), ROUND).metrics
    told = evaluate(machine, start, examples(40, held_out_every=5))
    assert (told.kind, told.base_version, told.num_examples, told.num_steps) == (
        "evaluate", 9, 8, 0,
    )  # fmt: skip
    assert (dict(told.weights), dict(told.groups)) == ({}, {})
    scores = {name: before[f"{name}_before"] for name in ("accuracy", "loss")}
    assert told.metrics == {**scores, "unreadable": 0.0}


def test_an_evaluation_encodes_only_what_is_held_out_and_drops_no_features():
    machine, start = learner(), checkpoint()
    evaluate(machine, start, examples(40, held_out_every=5))
    assert machine.workload.encoded == 8
    fit(machine, start, examples(40, held_out_every=5), ROUND)
    evaluate(machine, start, examples(40, held_out_every=5))
    fit(machine, start, examples(40, held_out_every=5), ROUND)
    assert machine.workload.encoded == 40


def test_nothing_held_out_or_a_checkpoint_of_another_trainer_cannot_be_measured():
    with pytest.raises(TrainingError, match="no held-out examples to measure with"):
        evaluate(learner(), checkpoint(), examples(10))
    other = Checkpoint(version=3, weights={"head/kernel": np.zeros((2, 2), np.float32)})
    with pytest.raises(TrainingError, match="the server's checkpoint 3"):
        evaluate(learner(), other, examples(10, held_out_every=2))


def test_an_update_is_the_difference_to_the_checkpoint():
    config = TrainConfig(epochs=1, batch_size=8, learning_rate=0.5, momentum=0.0)
    machine, start = learner(batch_size=8), checkpoint()
    update = fit(machine, start, examples(8), config)
    features = np.stack([e.raw for e in examples(8)]).astype(np.float32)
    targets = np.array([LABELS.index(e.label) for e in examples(8)])
    ones = np.ones(8, np.float32)
    _, gradients = machine.model.gradient(
        start.weights, {"vector": features}, {"class": targets}, ones
    )
    for name, gradient in gradients.items():
        assert update.weights[name] == pytest.approx(-0.5 * gradient, abs=1e-6)
    assert (update.robot, update.base_version) == ("", 3)
    assert (update.num_examples, update.num_steps) == (8, 1)


def test_training_lowers_the_loss_on_held_out_examples():
    update = fit(
        learner(),
        checkpoint(),
        examples(120, held_out_every=4),
        TrainConfig(epochs=5, learning_rate=0.1),
    )
    metrics = update.metrics
    assert metrics["held_out"] == 30
    assert update.num_examples == 90
    assert metrics["loss_after"] < metrics["loss_before"] / 2
    assert metrics["accuracy_after"] > max(0.8, metrics["accuracy_before"])
    assert 0 < metrics["train_loss"] < metrics["loss_before"]
    assert {"encode_s", "train_s"} <= metrics.keys()


def test_held_out_examples_change_no_weight():
    config = TrainConfig(epochs=2, learning_rate=0.1)
    with_held = list(examples(20, held_out_every=5))
    training = [example for example in with_held if not example.held_out]
    assert same(
        fit(learner(), checkpoint(), with_held, config),
        fit(learner(), checkpoint(), training, config),
    )


def test_without_held_out_examples_there_are_no_scores():
    metrics = fit(learner(), checkpoint(), examples(5), ROUND).metrics
    assert metrics["held_out"] == 0
    assert not {"loss_before", "loss_after", "accuracy_before", "accuracy_after"} & metrics.keys()


@given(count=st.integers(1, 11), batch_size=st.integers(1, 12), static=st.integers(1, 13))
@settings(max_examples=40, deadline=None)
def test_the_static_batch_of_the_graph_changes_nothing(count, batch_size, static):
    """Padded, short, split: a step is always the mean over its real rows."""
    config = TrainConfig(
        epochs=2, learning_rate=0.1, batch_size=batch_size, proximal_mu=0.1, clip_norm=1.0
    )
    exact = fit(learner(batch_size), checkpoint(), examples(count), config)
    machine = learner(static)
    other = fit(machine, checkpoint(), examples(count), config)
    for name, tensor in exact.weights.items():
        assert other.weights[name] == pytest.approx(tensor, abs=1e-5)
    assert {rows for rows, _ in machine.model.batches} == {static}
    assert other.num_steps == exact.num_steps == 2 * -(-count // batch_size)


@given(st.permutations(range(13)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_arrival_changes_nothing(order):
    config, some = (
        TrainConfig(epochs=2, learning_rate=0.1, batch_size=BATCH),
        list(examples(13, held_out_every=6)),
    )
    sorted_update = fit(learner(), checkpoint(), some, config)
    shuffled = fit(learner(), checkpoint(), [some[i] for i in order], config)
    assert same(sorted_update, shuffled)
    assert shuffled.metrics["loss_after"] == sorted_update.metrics["loss_after"]


@given(seed=st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=20, deadline=None)
def test_the_same_round_gives_the_same_update_bit_for_bit(seed):
    config = TrainConfig(epochs=2, learning_rate=0.1, seed=seed)
    one, other = (fit(learner(), checkpoint(), examples(40), config) for _ in range(2))
    assert same(one, other)


def test_another_seed_shuffles_otherwise():
    one, other = (
        fit(learner(), checkpoint(), examples(40), TrainConfig(seed=seed, batch_size=BATCH))
        for seed in (1, 2)
    )
    assert not same(one, other)


@given(st.integers(1, 20), st.floats(0, 0.99), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_a_zero_learning_rate_gives_a_zero_update(count, momentum, mu):
    config = TrainConfig(epochs=2, learning_rate=0.0, momentum=momentum, proximal_mu=mu)
    update = fit(learner(), checkpoint(), examples(count), config)
    assert all(not tensor.any() for tensor in update.weights.values())


@given(mu=st.floats(0.05, 1.0), epochs=st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_the_proximal_term_shrinks_the_update(mu, epochs):
    config = TrainConfig(epochs=epochs, learning_rate=0.1, momentum=0.0)
    free = fit(learner(), checkpoint(), examples(40), config)
    pulled = fit(learner(), checkpoint(), examples(40), dataclasses.replace(config, proximal_mu=mu))
    assert length(pulled) < length(free)


def test_logit_adjustment_takes_the_robots_own_shares_out_of_what_is_learned():
    """One step of the whole batch, with logits plus log((n + .5) / (n_all + 1.5))."""
    config = TrainConfig(
        epochs=1, batch_size=64, learning_rate=1.0, momentum=0.0, logit_adjustment=1.0
    )
    start = checkpoint()
    some = [e for e in examples(60) if e.label != "plate"]
    update = fit(learner(64), start, some, config)

    x = np.float64([e.raw for e in some])
    truth = np.eye(3)[[LABELS.index(e.label) for e in some]]
    shares = (truth.sum(axis=0) + 0.5) / (len(some) + 1.5)
    logits = x @ start.weights["head/kernel"] + start.weights["head/bias"] + np.log(shares)
    slope = (np.exp(log_softmax(logits)) - truth) / len(some)
    np.testing.assert_allclose(update.weights["head/kernel"], -x.T @ slope, atol=1e-5)
    np.testing.assert_allclose(update.weights["head/bias"], -slope.sum(axis=0), atol=1e-5)
    # The class that is never seen is pushed down by a tenth of what it was.
    plain = fit(learner(64), start, some, dataclasses.replace(config, logit_adjustment=0.0))
    assert plain.weights["head/bias"][2] < 10 * update.weights["head/bias"][2] < 0


def test_measures_are_of_the_model_itself():
    config = TrainConfig(epochs=1, learning_rate=0.0, logit_adjustment=5.0)
    some = [e for e in examples(40, held_out_every=4) if e.label != "plate"]
    scores = fit(learner(), checkpoint(), some, config).metrics
    plain = fit(learner(), checkpoint(), some, TrainConfig(epochs=1, learning_rate=0.0)).metrics
    assert scores["loss_after"] == scores["loss_before"] == plain["loss_after"]


def test_clipping_bounds_the_update():
    config = TrainConfig(
        epochs=1, batch_size=BATCH, learning_rate=0.1, momentum=0.0, clip_norm=1e-3
    )
    update = fit(learner(), checkpoint(), examples(40), config)
    assert update.num_steps == 10
    assert length(update) <= 10 * 0.1 * 1e-3 * (1 + 1e-4)


def test_the_checkpoint_is_left_as_it_came():
    start = checkpoint()
    for tensor in start.weights.values():
        tensor.flags.writeable = False
    before = {name: tensor.copy() for name, tensor in start.weights.items()}
    fit(learner(), start, examples(9), ROUND)
    assert all(np.array_equal(before[name], start.weights[name]) for name in before)


def test_an_example_is_encoded_once_for_all_rounds():
    machine = learner()
    for _ in range(3):
        fit(machine, checkpoint(), examples(10), TrainConfig(epochs=2, learning_rate=0.1))
    assert machine.workload.encoded == 10


def test_a_new_label_needs_no_new_features():
    machine, some = learner(), list(examples(10))
    fit(machine, checkpoint(), some, ROUND)
    relabelled = [dataclasses.replace(e, label=LABELS[0]) for e in some]
    update = fit(machine, checkpoint(), relabelled, TrainConfig(epochs=20, learning_rate=0.1))
    assert machine.workload.encoded == 10
    assert same(
        update, fit(learner(), checkpoint(), relabelled, TrainConfig(epochs=20, learning_rate=0.1))
    )


def test_keys_that_vanish_are_dropped():
    machine, some = learner(), list(examples(10))
    fit(machine, checkpoint(), some, ROUND)
    fit(machine, checkpoint(), some[6:], ROUND)
    assert len(machine.cache) == 4
    fit(machine, checkpoint(), some, ROUND)
    assert machine.workload.encoded == 16


def test_an_unreadable_frame_is_left_out_with_a_warning(caplog):
    broken = Example(raw=None, label="cup", key="bag/broken")
    unknown = Example(raw=np.zeros(FEATURES), label="spoon", key="bag/unknown")
    with caplog.at_level(logging.WARNING):
        update = fit(learner(), checkpoint(), [*examples(6), broken, unknown], ROUND)
    assert update.num_examples == 6
    assert update.metrics["unreadable"] == 2
    assert "2 examples left out; the first: frame 7: the picture is damaged" in caplog.text
    assert same(update, fit(learner(), checkpoint(), examples(6), ROUND))


def test_nothing_to_train_on_is_an_error():
    held = [dataclasses.replace(e, held_out=True) for e in examples(3)]
    with pytest.raises(TrainingError, match=r"no examples to train on \(3 held out\)"):
        fit(learner(), checkpoint(), held, ROUND)
    with pytest.raises(TrainingError, match="no examples to train on"):
        fit(learner(), checkpoint(), [], ROUND)


def test_one_key_for_two_examples_is_an_error():
    some = list(examples(3))
    with pytest.raises(TrainingError, match="two examples share a key"):
        fit(learner(), checkpoint(), [*some, some[1]], ROUND)


def test_a_loss_that_is_not_finite_sends_nothing():
    wild = TrainConfig(epochs=50, learning_rate=1e38)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) in epoch .*1e\+38 too high"):
        fit(learner(), checkpoint(), examples(20), wild)


def test_weights_that_overflow_in_the_last_step_send_nothing():
    wild = TrainConfig(epochs=1, batch_size=20, learning_rate=1e39)
    with pytest.raises(TrainingError, match="head/kernel holds NaN or infinity"):
        fit(learner(), checkpoint(), examples(20), wild)


def test_a_checkpoint_for_another_trainer_is_an_error():
    weights = dict(checkpoint().weights)
    weights["head/bias"] = np.zeros(9, np.float32)
    with pytest.raises(TrainingError, match=r"checkpoint 3: head/bias has shape \(9,\)"):
        fit(learner(), Checkpoint(version=3, weights=weights), examples(3), ROUND)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}])
def test_a_round_without_steps_is_an_error(wrong):
    with pytest.raises(TrainingError, match="expected at least 1 of each"):
        fit(learner(), checkpoint(), examples(3), TrainConfig(**wrong))


def test_more_examples_than_the_cache_holds_give_the_same_update():
    machine = learner(cache=FeatureCache(limit_bytes=FEATURES * 4 * 5))
    first = fit(machine, checkpoint(), examples(9), ROUND)
    assert len(machine.cache) == 5
    again = fit(machine, checkpoint(), examples(9), ROUND)
    assert same(first, fit(learner(), checkpoint(), examples(9), ROUND))
    assert same(first, again)


def test_a_full_cache_makes_room_for_new_keys():
    machine = learner(cache=FeatureCache(limit_bytes=FEATURES * 4 * 5))
    some = list(examples(10))
    fit(machine, checkpoint(), some[:5], ROUND)
    assert fit(machine, checkpoint(), some[5:], ROUND).num_examples == 5
    assert len(machine.cache) == 5


def test_cached_rows_keep_their_dtype_and_are_contiguous():
    cache = FeatureCache()
    cache.begin()
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)[:, ::2]
    row = cache.row("a", lambda: {"image": pixels})["image"]
    assert row.dtype == np.uint8
    assert row.flags.c_contiguous
    assert np.array_equal(row, pixels)


def test_rows_of_different_dtypes_meet_in_one_batch_without_loss():
    class Mixed(SoftmaxRegression):
        def features(self, inputs):
            vector = inputs["vector"]
            whole = vector.astype(np.uint8)
            return {"vector": whole if np.array_equal(whole, vector) else vector}

    some = [
        Example(raw=np.full(FEATURES, value), label=LABELS[0], key=str(value))
        for value in (1, 2.5, 3, 0.25)
    ]
    mixed = fit(dataclasses.replace(learner(), model=Mixed()), checkpoint(), some, ROUND)
    assert same(mixed, fit(learner(), checkpoint(), some, ROUND))


@pytest.mark.parametrize(
    ("value", "threads"), [("3", 3), ("4,2", 4), ("", 2), ("0", 2), ("many", 2)]
)
def test_threads_come_from_the_environment(monkeypatch, value, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads_from_environment() == threads


# ------------------------------------------------------------------------------- decoding ahead


class SlowAtFirst(Vectors):
    """Encodes in threads that end in another order than they began."""

    def encode(self, raw):
        time.sleep(0.02 if self.encoded % 3 == 0 else 0.0)
        return super().encode(raw)


def test_pictures_decoded_ahead_give_the_same_update_bit_for_bit(monkeypatch):
    config = TrainConfig(epochs=2, learning_rate=0.1)
    machine = learner()
    ahead = dataclasses.replace(machine, workload=SlowAtFirst())
    update = fit(ahead, checkpoint(), examples(30, held_out_every=5), config)
    monkeypatch.setattr(trainer, "map_ahead", lambda function, items, *_: in_turn(function, items))
    other = fit(learner(), checkpoint(), examples(30, held_out_every=5), config)
    assert same(update, other)
    timed = {"encode_s", "train_s"}
    assert {n: v for n, v in update.metrics.items() if n not in timed} == {
        n: v for n, v in other.metrics.items() if n not in timed
    }


def in_turn(function, items):
    yield from map(function, items)


def test_no_more_than_a_window_of_pictures_is_in_memory():
    class Counted:
        alive = most = 0

        def __init__(self):
            Counted.alive += 1
            Counted.most = max(Counted.most, Counted.alive)

        def __del__(self):
            Counted.alive -= 1

        def __array__(self, dtype=None, copy=None):
            return np.ones(FEATURES, dtype)

    def stream():
        for number in range(200):
            yield Example(raw=Counted(), label=LABELS[number % 3], key=f"{number:03d}")

    fit(learner(), checkpoint(), stream(), ROUND)
    assert Counted.most <= trainer.WINDOW + 3


def test_threads_end_also_when_a_training_fails():
    threads = threading.active_count()
    twice = [*examples(20), *examples(20)]
    with pytest.raises(TrainingError, match="two examples share a key"):
        fit(learner(), checkpoint(), twice, ROUND)
    assert threading.active_count() == threads


def test_features_that_had_to_make_room_are_computed_again():
    cache = FeatureCache(limit_bytes=(4 * FEATURES) * 12)  # of 16 rows, four bytes a number
    machine = learner(cache=cache)
    fit(machine, checkpoint(), list(examples(12)), ROUND)
    mixed = [*list(examples(12, seed=2))[6:], *list(examples(12))[:6]]
    fresh = [dataclasses.replace(e, key=f"new/{e.key}") for e in mixed[:6]] + mixed[6:]
    update = fit(machine, checkpoint(), fresh, ROUND)
    assert same(update, fit(learner(), checkpoint(), fresh, ROUND))


# ---------------------------------------------------------- weights of examples, tensors of a task


class Weighted(Vectors):
    """Examples whose raw input says what they count."""

    def encode(self, raw):
        return super().encode(raw[1])

    def target(self, example):
        return dataclasses.replace(super().target(example), weight=example.raw[0])


def weighted(weights):
    return [
        dataclasses.replace(one, raw=(weight, one.raw))
        for one, weight in zip(examples(len(weights)), weights, strict=True)
    ]


@pytest.mark.parametrize("static", [4, 16])
def test_an_example_of_weight_two_is_that_example_twice(static):
    config = TrainConfig(epochs=1, batch_size=16, learning_rate=0.1)
    weights = [1.0, 2.0, 3.0, 1.0, 2.0]
    repeated = [
        dataclasses.replace(one, key=f"{one.key}/{copy}")
        for one in weighted(weights)
        for copy in range(int(one.raw[0]))
    ]
    repeated = [dataclasses.replace(one, raw=(1.0, one.raw[1])) for one in repeated]
    machine = dataclasses.replace(learner(static), workload=Weighted())

    once = fit(machine, checkpoint(), weighted(weights), config)
    copies = fit(
        dataclasses.replace(learner(16), workload=Weighted()), checkpoint(), repeated, config
    )

    assert once.num_examples == copies.num_examples == 9
    assert once.metrics["train_loss"] == pytest.approx(copies.metrics["train_loss"], abs=1e-6)
    for name, tensor in copies.weights.items():
        assert once.weights[name] == pytest.approx(tensor, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_an_example_that_counts_nothing_is_left_out(weight):
    machine = dataclasses.replace(learner(), workload=Weighted())
    update = fit(machine, checkpoint(), weighted([1.0, weight, 1.0]), ROUND)
    assert (update.num_examples, update.metrics["unreadable"]) == (2, 1)


def test_a_workload_that_gives_other_tensors_than_its_task_says_is_told_which():
    class Crooked(Vectors):
        def target(self, example):
            return Target(tensors={"class": np.zeros(2, np.int32)})

    with pytest.raises(TrainingError, match=r"the targets of an example are .*class.*\(2,\).*\(\)"):
        fit(dataclasses.replace(learner(), workload=Crooked()), checkpoint(), examples(3), ROUND)
    short = [dataclasses.replace(one, raw=one.raw[:4]) for one in examples(3)]
    with pytest.raises(TrainingError, match=r"the inputs of an example are .*\(4,\).*\(6,\)"):
        fit(learner(), checkpoint(), short, ROUND)
