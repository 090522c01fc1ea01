"""A small CNN in NumPy, and what one robot does with it in a round.

    28 x 28 -> conv 5x5/2, 16 -> conv 3x3/3, 32 -> dense 64 -> dense 10      38,538 numbers

ReLU between the layers. A pass over 10,000 pictures takes 0.3 s of one core: windows of the second
layer do not overlap, so that the way back through it is a transposition, and those of the first
are made once. The optimizer is that of the agent (fleet_model/optimizer.py), no copy of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.fashion import CLASSES, Pictures
from fleet_model.optimizer import log_shares, step, still
from fleet_model.types import Tensor, TrainConfig, Update, Weights
from fleet_model.weights import difference

SHAPES = {
    "conv1/kernel": (25, 16), "conv1/bias": (16,),  # 5 x 5 pixels
    "conv2/kernel": (144, 32), "conv2/bias": (32,),  # 3 x 3 x 16
    "dense/kernel": (512, 64), "dense/bias": (64,),
    "head/kernel": (64, CLASSES), "head/bias": (CLASSES,),
}  # fmt: skip
MEAN, SPREAD = 0.286, 0.353  # of the training pictures' pixels, 0..1
_CHUNK = 250  # pictures that are measured at once


@dataclass(frozen=True, eq=False)
class Windows:
    """Pictures as the first layer sees them."""

    windows: Tensor  # (n, 144, 25) float32: 12 x 12 places of 5 x 5 pixels
    classes: NDArray[np.int64]  # (n,)

    def __len__(self) -> int:
        return len(self.classes)


def windows_of(pictures: Pictures) -> Windows:
    """Return pictures as the first layer sees them: 14 kB each."""
    pixels = ((pictures.pixels / np.float32(255)) - np.float32(MEAN)) / np.float32(SPREAD)
    views = np.lib.stride_tricks.sliding_window_view(pixels, (5, 5), axis=(1, 2))[:, ::2, ::2]
    return Windows(views.reshape(len(pictures), 144, 25), pictures.classes)


def first_weights(seed: int) -> Weights:
    """Return a start: He et al. 2015 (arXiv:1502.01852) for kernels, zeros for biases."""
    rng = np.random.default_rng([seed, 11])
    return {
        name: np.zeros(shape, np.float32)
        if len(shape) == 1
        else rng.normal(0, np.sqrt(2 / shape[0]), shape).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def _layers(weights: Weights, windows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return what each layer gives: (n 144, 16), (n 16, 144), (n 16, 32), (n, 64), (n, 10)."""
    n = len(windows)
    one = windows.reshape(-1, 25) @ weights["conv1/kernel"]
    one += weights["conv1/bias"]
    np.maximum(one, 0, out=one)
    places = one.reshape(n, 4, 3, 4, 3, 16).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 144)
    two = places @ weights["conv2/kernel"]
    two += weights["conv2/bias"]
    np.maximum(two, 0, out=two)
    three = two.reshape(n, 512) @ weights["dense/kernel"]
    three += weights["dense/bias"]
    np.maximum(three, 0, out=three)
    return one, places, two, three, three @ weights["head/kernel"] + weights["head/bias"]


def gradient(weights: Weights, batch: Windows, shift: Tensor) -> Weights:
    """Return the gradient of the mean cross entropy.

    Args:
        weights: where.
        batch: of which pictures.
        shift: added to the logits, shape (10,).
    """
    n = len(batch)
    one, places, two, three, logits = _layers(weights, batch.windows)
    wrong = logits + shift
    wrong -= wrong.max(1, keepdims=True)
    np.exp(wrong, out=wrong)
    wrong /= wrong.sum(1, keepdims=True)
    wrong[np.arange(n), batch.classes] -= 1
    wrong *= np.float32(1 / n)
    made = {"head/kernel": three.T @ wrong, "head/bias": wrong.sum(0)}
    back = wrong @ weights["head/kernel"].T  # (n, 64)
    back *= three > 0
    made |= {"dense/kernel": two.reshape(n, 512).T @ back, "dense/bias": back.sum(0)}
    back = (back @ weights["dense/kernel"].T).reshape(-1, 32)
    back *= two > 0
    made |= {"conv2/kernel": places.T @ back, "conv2/bias": back.sum(0)}
    back = back @ weights["conv2/kernel"].T  # (n 16, 144)
    back = back.reshape(n, 4, 4, 3, 3, 16).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 16)
    back *= one > 0
    made |= {"conv1/kernel": batch.windows.reshape(-1, 25).T @ back, "conv1/bias": back.sum(0)}
    return made


def accuracy(weights: Weights, measured: Windows) -> float:
    """Return the share of pictures that are named rightly; nan if the weights are not finite."""
    if not all(np.isfinite(tensor).all() for tensor in weights.values()):
        return float("nan")
    right = 0
    for begin in range(0, len(measured), _CHUNK):
        rows = slice(begin, begin + _CHUNK)
        logits = _layers(weights, measured.windows[rows])[-1]
        right += int((logits.argmax(1) == measured.classes[rows]).sum())
    return right / len(measured)


def fit(
    own: Windows,
    start: Weights,
    version: int,
    config: TrainConfig,
    correction: Weights | None = None,
) -> Update:
    """Train as a robot does in one round: momentum begins with zeros, the last batch is short.

    Args:
        own: its pictures.
        start: where it begins.
        version: of the start.
        config: how it trains.
        correction: of each gradient, under SCAFFOLD.
    """
    weights, velocity, steps = start, still(start), 0
    counts = np.bincount(own.classes, minlength=CLASSES)
    shift = log_shares(counts, config.logit_adjustment)  # zeros where it is off
    rng = np.random.default_rng(config.seed)
    for _ in range(config.epochs):
        order = rng.permutation(len(own))
        for begin in range(0, len(order), config.batch_size):
            rows = order[begin : begin + config.batch_size]
            batch = Windows(own.windows[rows], own.classes[rows])
            slope = gradient(weights, batch, shift)
            weights, velocity = step(weights, velocity, slope, start, config, correction)
            steps += 1
    return Update(
        robot="",
        base_version=version,
        weights=difference(weights, start),
        num_examples=len(own),
        num_steps=steps,
    )
