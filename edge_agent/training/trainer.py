"""Train on a robot's own examples: the one loop that every framework shares.

A framework says what it alone can compute (`Differentiable`: features, gradient, outputs).
Shuffling, batches, padding, the optimizer, evaluation are here, in NumPy: robots with any of them
send the same update for the same examples.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from edge_agent.data.ahead import map_ahead
from edge_agent.training.adapted_model import dropped, started, tensors_of
from edge_agent.training.class_shares import class_shift
from edge_agent.training.feature_cache import FeatureCache
from edge_agent.training.pseudo_labels.own_truths import can_teach_itself, with_own_truths
from edge_agent.training.rows import EncodedRows, RowAgain, Rows, is_without_room, stacked
from fleet_model.adapters.lora import masked
from fleet_model.bundle import TrainerSpec
from fleet_model.errors import FrameError, TrainingError
from fleet_model.measures import AFTER, BEFORE, at
from fleet_model.optimizer import step, still
from fleet_model.protocol.example_counts import HELD_OUT, UNREADABLE, taught_metrics
from fleet_model.types import (
    EVALUATE,
    Checkpoint,
    Encoded,
    Example,
    Metrics,
    PseudoLabel,
    Target,
    Tensor,
    Tensors,
    TrainConfig,
    Update,
    Weights,
)
from fleet_model.weights import difference, require_same_tensors
from fleet_model.workload import Workload, require_tensors

TRAINERS = {
    "keras": "edge_agent.training.trainers.keras:KerasTrainer",
    "litert": "edge_agent.training.trainers.litert:LiteRTTrainer",
    "torch": "edge_agent.training.trainers.torch:TorchTrainer",
}

# Decoding a picture takes as long as its features; two threads keep two cores at it. The window
# bounds the memory: 8 encoded inputs of 224 pixels are 5 MB.
ENCODERS, WINDOW = 2, 8

log = logging.getLogger(__name__)


class NoExamplesError(TrainingError):
    """There is nothing to learn from or to measure with."""

    def __init__(self, message: str, unreadable: int) -> None:
        super().__init__(message)
        self.unreadable = unreadable  # examples that could not be decoded or learned from


class Trainer(Protocol):
    """Improve a checkpoint with examples that stay on the robot; kept between rounds.

    Built as `Trainer(spec, directory)`, where `directory` holds the verified files of its part. One
    that can also measure a checkpoint has `evaluate(checkpoint, examples) -> Update`, too; one that
    can tell sums of features has `sums(checkpoint, examples, config, sent) -> Update`.
    """

    def fit(
        self, checkpoint: Checkpoint, examples: Iterable[Example], config: TrainConfig
    ) -> Update:
        """Return the update of one round; raises TrainingError, and then nothing is sent.

        One that takes part in SCAFFOLD has a further argument, `correction: Weights | None = None`,
        which it adds to the gradient of each step (fleet_model.optimizer.step).
        """
        ...


class Differentiable(Protocol):
    """What one framework computes; all batches have exactly `TrainerSpec.batch_size` rows."""

    def features(self, inputs: Tensors) -> Tensors:
        """Return what the trainable part takes for one encoded input; no batch axis on either."""
        ...

    def gradient(
        self, weights: Weights, features: Tensors, targets: Tensors, sample_weight: Tensor
    ) -> tuple[float, Weights]:
        """Return the weighted mean loss of a batch with its gradients by tensor name.

        Args:
            weights: the trainable tensors.
            features: (batch, *feature shape) each
            targets: (batch, *target shape) each, by the names of Task.targets
            sample_weight: (batch,) float32; 0 marks a row that only pads.
        """
        ...

    def outputs(self, weights: Weights, features: Tensors) -> Tensors:
        """Return the outputs of a batch by the names of Task.outputs, (batch, *output shape)."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Learner:
    """A trainer's insides: one framework's model, and the features that it has seen."""

    spec: TrainerSpec
    workload: Workload
    model: Differentiable
    cache: FeatureCache = field(default_factory=FeatureCache)


def fit(
    learner: Learner,
    checkpoint: Checkpoint,
    examples: Iterable[Example],
    config: TrainConfig,
    correction: Weights | None = None,
) -> Update:
    """Train for one round; the same arguments give the same update, bit for bit.

    The order in which `examples` arrive does not matter. One that cannot be read or has an unknown
    label is left out and counted in the metric "unreadable". With held-out examples the metrics
    hold the workload's measures before and after.

    Raises:
        NoExamplesError: nothing to train on.
        TrainingError: a checkpoint for another trainer, or a loss or weight that is not finite.
    """
    if config.epochs < 1 or config.batch_size < 1:
        raise TrainingError(
            f"the server asks for {config.epochs} epochs of batches of {config.batch_size}; "
            "expected at least 1 of each"
        )
    learner, origin = _started(learner, checkpoint)
    begin = time.perf_counter()
    training, held_out, unknown, rule, taught, unreadable = encoded_rows(learner, examples)
    learner.cache.end()
    if not len(training):
        raise NoExamplesError(f"no examples to train on ({len(held_out)} held out)", unreadable)
    pseudo: Metrics = {}
    if rule:
        training, pseudo = with_own_truths(
            learner.workload, _answers(learner, origin), (training, held_out), unknown, rule, taught
        )
    encoded = time.perf_counter()
    shift = class_shift(learner.workload, learner.spec, training, config)
    with np.errstate(over="ignore", invalid="ignore"):  # not finite is an error of its own below
        weights, num_steps, train_loss = _train(
            learner, origin, training, config, shift, correction
        )
    trained = time.perf_counter()
    metrics = {
        "train_loss": train_loss,
        HELD_OUT: float(len(held_out)),
        UNREADABLE: float(unreadable),
        "encode_s": encoded - begin,
        "train_s": trained - encoded,
        **at(BEFORE, _score(learner, origin, held_out)),
        **at(AFTER, _score(learner, weights, held_out)),
        **pseudo,
        **taught_metrics(list(taught.values())),
    }
    return Update(
        robot="",
        base_version=checkpoint.version,
        weights=difference(weights, origin),
        num_examples=max(1, round(training.weight(range(len(training))))),
        num_steps=num_steps,
        metrics=metrics,
    )


def evaluate(learner: Learner, checkpoint: Checkpoint, examples: Iterable[Example]) -> Update:
    """Measure a checkpoint on the held-out examples; the reply holds measures and no weights.

    Raises:
        NoExamplesError: nothing is held out.
        TrainingError: a checkpoint for another trainer.
    """
    learner, origin = _started(learner, checkpoint)
    # The round of the cache stays open: what was computed for training is not dropped.
    _, held_out, *_, unreadable = encoded_rows(learner, (e for e in examples if e.held_out))
    if not len(held_out):
        raise NoExamplesError("no held-out examples to measure with", unreadable)
    return Update(
        kind=EVALUATE,
        robot="",
        base_version=checkpoint.version,
        weights={},
        num_examples=max(1, round(held_out.weight(range(len(held_out))))),
        num_steps=0,
        metrics={**_score(learner, origin, held_out), UNREADABLE: float(unreadable)},
    )


def _started(learner: Learner, checkpoint: Checkpoint) -> tuple[Learner, Weights]:
    """Return what trains from this checkpoint, and the tensors it trains; raises TrainingError."""
    origin = tensors_of(learner.spec, checkpoint)
    return replace(learner, model=started(learner.model, checkpoint.weights)), origin


class _Prepared(NamedTuple):
    """An example that has been decoded, but for one whose features are cached."""

    example: Example
    target: Target | None  # None: it cannot be learned from
    encoded: Encoded | None  # None: its features are cached
    refusal: str  # why it cannot be learned from; "" where it can


def encoded_rows(learner: Learner, examples: Iterable[Example]) -> EncodedRows:
    """Return what examples are to a model; only new keys are decoded."""
    seen: dict[str, tuple[int, Tensors, Target]] = {}
    reasons: list[str] = []
    rule: PseudoLabel | None = None
    taught: dict[str, float] = {}
    if not can_teach_itself(learner.workload):
        examples = (example for example in examples if not example.pseudo)
    learner.cache.begin()
    prepare = partial(_prepare, learner)
    with closing(map_ahead(prepare, examples, ENCODERS, WINDOW)) as prepared:
        for example, target, encoded, refusal in prepared:
            if example.key in seen:
                log.error("two examples share the key %r", example.key)
                raise TrainingError("two examples share a key; keys must be unique")
            if target is None:
                reasons.append(refusal)
                continue
            compute = partial(_features, learner, example, encoded)
            try:
                row = learner.cache.row(example.key, compute)
            except FrameError as error:
                reasons.append(str(error))
                continue
            if encoded and is_without_room(learner.cache, example.key, encoded.inputs, row):
                row = RowAgain(row, compute)
            rule = rule or example.pseudo
            taught |= {example.key: example.taught} if example.taught else {}
            seen[example.key] = (2 if example.pseudo else int(example.held_out), row, target)
    if reasons:
        log.warning("%d examples left out; the first: %s", len(reasons), reasons[0])
    rows = [(*seen[key], key) for key in sorted(seen)]
    training, held_out, unknown = (
        Rows([r[1] for r in part], [r[2] for r in part], [r[3] for r in part])
        for part in ([r for r in rows if r[0] == kind] for kind in range(3))
    )
    return EncodedRows(training, held_out, unknown, rule, taught, len(reasons))


def _prepare(learner: Learner, example: Example) -> _Prepared:
    """Look up the truth of an example and encode it, in a thread of `map_ahead`."""
    try:
        if example.pseudo:
            target = Target(tensors={}, weight=example.pseudo.weight)
        else:
            target = learner.workload.target(example)
        if example.taught:
            target = replace(target, weight=target.weight * example.taught)
        if not 0 < target.weight < math.inf:
            raise FrameError(f"an example of weight {target.weight}, expected more than 0")
        cached = example.key in learner.cache
        encoded = None if cached else learner.workload.encode(example.raw)
    except FrameError as error:
        return _Prepared(example, None, None, str(error))
    if not example.pseudo:
        require_tensors(learner.workload.task.targets, target.tensors, "the targets of an example")
    return _Prepared(example, target, encoded, "")


def _features(learner: Learner, example: Example, encoded: Encoded | None) -> Tensors:
    # Cached features are gone if the cache had to make room since `_prepare` looked.
    inputs = (encoded or learner.workload.encode(example.raw)).inputs
    require_tensors(learner.workload.task.inputs, inputs, "the inputs of an example")
    features = learner.model.features(inputs)
    # Rounded when they are new, too: a round must not depend on what was kept of the last one.
    kept = getattr(learner.workload, "features_dtype", None)
    return {name: t.astype(kept or t.dtype, copy=False) for name, t in features.items()}


def _train(
    learner: Learner,
    origin: Weights,
    rows: Rows,
    config: TrainConfig,
    shift: Weights,
    correction: Weights | None,
) -> tuple[Weights, int, float]:
    """Return (weights, steps, mean loss of the last epoch)."""
    random = np.random.default_rng(config.seed % 2**64)  # the generator takes no negative seed
    rows = rows.cropped(learner.workload, config.seed)
    weights, velocity = origin, still(origin)
    num_steps, total, everything = 0, 0.0, range(len(rows))
    for epoch in range(config.epochs):
        order, total = random.permutation(len(rows)).tolist(), 0.0
        for start in range(0, len(order), config.batch_size):
            picked = order[start : start + config.batch_size]
            # A shifted tensor has the gradient of the tensor itself: no other graph is needed.
            moved = {**weights, **{name: weights[name] + by for name, by in shift.items()}}
            masks = dropped(learner.spec, config.seed, num_steps)
            loss, gradients = _gradient(learner, masked(moved, masks), rows, picked)
            gradients = masked(gradients, masks)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} in epoch {epoch + 1}, step {num_steps + 1}; expected a "
                    f"finite number: is the learning rate {config.learning_rate} too high?"
                )
            weights, velocity = step(weights, velocity, gradients, origin, config, correction)
            num_steps, total = num_steps + 1, total + loss * rows.weight(picked)
    require_same_tensors(origin, weights, sender="the trained weights", error=TrainingError)
    return weights, num_steps, total / rows.weight(everything)


def _gradient(
    learner: Learner, weights: Weights, rows: Rows, picked: Sequence[int]
) -> tuple[float, Weights]:
    """Return mean loss and gradients over `picked`, which may be longer than the static batch."""
    parts, whole = [], rows.weight(picked)
    for batch in rows.batches(picked, learner.spec.batch_size):
        loss, gradients = learner.model.gradient(weights, *batch)
        parts.append((float(batch.sample_weight.sum()) / whole, loss, gradients))
    if len(parts) == 1:
        return parts[0][1:]
    return (
        sum(share * loss for share, loss, _ in parts),
        {name: sum(share * g[name] for share, _, g in parts) for name in weights},  # type: ignore[misc]
    )


def _score(learner: Learner, weights: Weights, rows: Rows) -> Metrics:
    """Return the workload's measures; none without rows."""
    if not len(rows):
        return {}
    targets = stacked([target.tensors for target in rows.targets], len(rows))
    return learner.workload.measure(_answers(learner, weights)(rows), targets)


def _answers(learner: Learner, weights: Weights) -> Callable[[Rows], Tensors]:
    outputs = partial(learner.model.outputs, weights)
    return lambda rows: rows.answers(learner.spec.batch_size, outputs)
