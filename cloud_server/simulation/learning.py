"""The virtual robots' task: a softmax head on frozen features, trained with real gradients.

A robot's features have WIDTH numbers, as those of EfficientNet-Lite0, but lie in a space of
LATENT axes: feature = latent @ basis, where the rows of `basis` are orthonormal. Gradient descent
on the head then never leaves that space, so every step is computed there, at LATENT / WIDTH of the
cost, and is exactly the step that the full head would make; the update that travels is the full
one. Features are made from the robot's seed when they are needed and never kept.
"""

from dataclasses import dataclass

import numpy as np

from fleet_model.optimizer import log_shares, step, still
from fleet_model.types import Checkpoint, Tensor, TrainConfig, Update, Weights

LABELS = 5
WIDTH, LATENT = 1280, 32  # 1280 x 5 float32: the head of `cloud-server init`, 25.6 kB
KERNEL, BIAS = "head/kernel", "head/bias"
DISTANCE = 0.45  # of a label's middle from the origin, in spreads of its frames, along each axis
# Spread along axis k. Short axes say as much as long ones but are learned later: accuracy climbs
# over some ten rounds of the default training, as real heads do, rather than in one.
SPREAD = (0.7 / np.sqrt(np.arange(1, LATENT + 1))).astype(np.float32)
TEST_EXAMPLES = 2000
HELD_OUT = 5  # one example in so many is measured with and never trained on


@dataclass(frozen=True, eq=False, slots=True)
class Examples:
    """Latent features with their labels."""

    latent: Tensor  # (n, LATENT) float32, or features of another width
    label: Tensor  # (n,) int


class HeadTask:
    """One world: what the labels look like, the same for all robots."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        square, _ = np.linalg.qr(rng.standard_normal((WIDTH, LATENT)))
        self._basis = np.ascontiguousarray(square.T, np.float32)  # (LATENT, WIDTH)
        middles = rng.standard_normal((LABELS, LATENT)) * DISTANCE
        self._middles = middles.astype(np.float32)
        self._seed = seed
        self._test = self._draw(rng, TEST_EXAMPLES, np.full(LABELS, 1 / LABELS))

    def start(self) -> Checkpoint:
        """Return version 0: zeros, which call every label equally likely."""
        kernel = np.zeros((WIDTH, LABELS), np.float32)
        weights = {KERNEL: kernel, BIAS: np.zeros(LABELS, np.float32)}
        return Checkpoint(version=0, weights=weights, seed=self._seed)

    def score(self, weights: Weights) -> tuple[float, float]:
        """Return loss and accuracy on test examples of evenly mixed labels, which nobody trains."""
        return _score(self._basis @ weights[KERNEL], weights[BIAS], self._test)

    def narrow(self, weights: Weights) -> Weights:
        """Return a head, or a change of one, in LATENT axes: those in which it learns."""
        return {KERNEL: self._basis @ weights[KERNEL], BIAS: weights[BIAS]}

    def wide(self, weights: Weights) -> Weights:
        """Return what `narrow` was given."""
        return {KERNEL: self._basis.T @ weights[KERNEL], BIAS: weights[BIAS]}

    def fit(
        self,
        robot: int,
        examples: int,
        mix: Tensor,
        checkpoint: Checkpoint,
        config: TrainConfig,
        correction: Weights | None = None,
    ) -> Update:
        """Train the head on one robot's own examples.

        Args:
            robot: its number; with the task's seed it fixes every example.
            examples: how many it trains with.
            mix: share of each label on this robot, shape (LABELS,).
            checkpoint: where it starts.
            config: how it trains; `seed` is mixed in.
            correction: added to the gradient of each step, as `narrow` gives it.
        """
        rng = np.random.default_rng([self._seed, 1, robot])
        own = self._draw(rng, examples, mix)
        kept = self._draw(rng, max(1, examples // HELD_OUT), mix)
        kernel = self._basis @ checkpoint.weights[KERNEL]  # (LATENT, LABELS)
        bias = checkpoint.weights[BIAS]
        before = _score(kernel, bias, kept)
        order = np.random.default_rng([self._seed, 2, robot, checkpoint.version, config.seed])
        trained, trained_bias, steps = descend(own, kernel, bias, config, order, correction)
        after = _score(trained, trained_bias, kept)
        names = ("loss_before", "accuracy_before", "loss_after", "accuracy_after")
        return Update(
            robot="",
            base_version=checkpoint.version,
            weights={
                KERNEL: self._basis.T @ (trained - kernel),  # (WIDTH, LABELS)
                BIAS: trained_bias - bias,
            },
            num_examples=examples,
            num_steps=steps,
            metrics={
                **dict(zip(names, (*before, *after), strict=True)),
                "held_out": float(len(kept.label)),
            },
        )

    def _draw(self, rng: np.random.Generator, count: int, mix: Tensor) -> Examples:
        label = np.searchsorted(np.cumsum(mix)[:-1], rng.random(count), side="right")
        noise = rng.standard_normal((count, LATENT), dtype=np.float32)
        return Examples((self._middles[label] + noise) * SPREAD, label)


def descend(
    examples: Examples,
    kernel: Tensor,
    bias: Tensor,
    config: TrainConfig,
    rng: np.random.Generator,
    correction: Weights | None = None,
) -> tuple[Tensor, Tensor, int]:
    """Return kernel, bias and the number of steps, taken by the robots' own optimizer.

    Args:
        examples: features of any width.
        kernel: (width, labels) float32, where it begins.
        bias: (labels,) float32.
        config: how it trains; its seed is not used.
        rng: shuffles.
        correction: of kernel and bias, added to the gradient of each step.
    """
    # The bias is a feature that is 1, so both are one tensor: (width + 1, labels).
    start: Weights = {KERNEL: np.vstack([kernel, bias])}
    weights, velocity, steps = start, still(start), 0
    if correction is not None:
        correction = {KERNEL: np.vstack([correction[KERNEL], correction[BIAS]])}
    counts = np.bincount(examples.label, minlength=len(bias))
    shift = log_shares(counts, config.logit_adjustment)  # zeros where it is off
    inputs = np.hstack([examples.latent, np.ones((len(examples.label), 1), np.float32)])
    truth = np.eye(len(bias), dtype=np.float32)[examples.label]
    for _ in range(config.epochs):
        order = rng.permutation(len(truth))
        for begin in range(0, len(order), config.batch_size):
            rows = order[begin : begin + config.batch_size]
            x = inputs[rows]  # (batch, width + 1)
            wrong = _softmax(x @ weights[KERNEL] + shift) - truth[rows]
            gradient = {KERNEL: x.T @ wrong / np.float32(len(rows))}
            weights, velocity = step(weights, velocity, gradient, start, config, correction)
            steps += 1
    return weights[KERNEL][:-1], weights[KERNEL][-1], steps


def _score(kernel: Tensor, bias: Tensor, examples: Examples) -> tuple[float, float]:
    chances = _softmax(examples.latent @ kernel + bias)  # (n, LABELS)
    right = chances[np.arange(len(chances)), examples.label]
    loss = float(-np.log(np.maximum(right, 1e-9)).mean())
    return loss, float((chances.argmax(axis=1) == examples.label).mean())


def _softmax(logits: Tensor) -> Tensor:
    powers: Tensor = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers
