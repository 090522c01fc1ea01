"""SCAFFOLD's control variates (Karimireddy et al. 2020, arXiv:1910.06378), on both sides.

Each robot has c_i, the mean gradient along its last training; the server has c, their mean. Tensors
of both have names and shapes of the checkpoint. They travel as groups of a message:

                 request                             reply
  control        c                                   c_i after training - c_i before
  control-tags   folded: of the c_i that c holds     began, made: of the c_i before and after

A tag names one c_i of one robot by two numbers, drawn by the robot. A robot goes on from the c_i
whose tag the request names, so what it trained in a round that was lost, or refused, is forgotten
on both sides, and no message says so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fleet_model.types import Tensor, TrainConfig, Weights
from fleet_model.weights import difference

CONTROL, TAGS = "control", "control-tags"  # groups of a message
FOLDED, BEGAN, MADE = "folded", "began", "made"  # tensors: (robots, 2) and two of (2,), float32
DIGITS = 24  # bits of each number of a tag: all of them fit into a float32


def no_tag() -> Tensor:
    """Return the tag of a robot that has no c_i: two zeros."""
    return np.zeros(2, np.float32)


def tag_of(number: int) -> Tensor:
    """Return the tag that a number of 48 bits gives; 0 is no tag."""
    high, low = divmod(number % 2 ** (2 * DIGITS), 2**DIGITS)
    return np.array([high, low], np.float32)


@dataclass(frozen=True, eq=False, slots=True)
class Control:
    """One c_i of a robot."""

    number: int  # gives its tag; never 0
    tensors: Weights

    @property
    def tag(self) -> Tensor:
        """Return what it is named by in messages."""
        return tag_of(self.number)


def held(known: Iterable[Control], folded: Tensor) -> Control | None:
    """Return the first of a robot's c_i that is in c; None if none of them is.

    Args:
        known: of the robot, the newest one first.
        folded: (robots, 2): tags that a request names.
    """
    return next((one for one in known if bool((folded == one.tag).all(axis=1).any())), None)


def reach(steps: int, momentum: float) -> float:
    """Return how far steps of the heavy ball carry: the sum of a_t, t = 1..steps.

    Without momentum that is their number. With momentum r the gradient of step t moves the weights
    in its own and in all later steps, a_t = (1 - r^(steps - t + 1)) / (1 - r) times the rate in
    all; the sum is (steps - r * (1 - r^steps) / (1 - r)) / (1 - r).
    """
    return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)


def correction(own: Weights, mean: Weights) -> Weights:
    """Return c - c_i, which a robot adds to the gradient of each step."""
    return {name: mean[name] - own[name] for name in mean}


def after_training(
    corrected: Weights | None, change: Weights, config: TrainConfig, steps: int
) -> Weights:
    """Return c_i after training: Algorithm 1, option II.

    c_i <- c_i - c - change / (rate * reach). Without momentum the reach is the paper's number of
    steps K; with it, this is still the mean of the gradients that the robot would have followed
    without correction, weighed by how far each has carried.

    Args:
        corrected: c - c_i, by which each gradient was corrected; None: by nothing.
        change: of the weights, by all steps.
        config: how it trained.
        steps: how many there were, at least 1.
    """
    scale = np.float32(-1 / (config.learning_rate * reach(steps, config.momentum)))
    mean = {name: scale * tensor for name, tensor in change.items()}
    return mean if corrected is None else {n: g - corrected[n] for n, g in mean.items()}


def reply_groups(before: Control | None, after: Control) -> dict[str, Weights]:
    """Return the groups of a reply.

    Args:
        before: what `held` returned.
        after: what this training has made of it.
    """
    change = after.tensors if before is None else difference(after.tensors, before.tensors)
    began = no_tag() if before is None else before.tag
    return {CONTROL: change, TAGS: {BEGAN: began, MADE: after.tag}}


def group_shapes(like: Weights) -> Mapping[str, Weights]:
    """Return tensors of the names and shapes that the groups of a reply have."""
    return {CONTROL: like, TAGS: {BEGAN: no_tag(), MADE: no_tag()}}
