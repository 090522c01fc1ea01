"""How well the sums of the others explain one robot's: from sums alone, without a frame.

With a head of all robots but one, the mean squared error on that robot's frames is, of the class k,

    |e_k - W'mu_k - c|^2                   of its mean, plus
    tr(W' within W) / frames               of the frames around their means

The strength of the ridge is what is best for robots that were left out. A robot's own held-out
frames cannot choose it: neighbors in time are too alike.
"""

import numpy as np

from cloud_server.closed_form.fleet_sums import FleetSums
from cloud_server.closed_form.heads import Head, ridge
from cloud_server.closed_form.moments import Moments
from fleet_model.types import Tensor

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)
ALONE = 1.0  # where nobody can be left out
# How much softer a head is than what robots that were left out would be told best with: gradient
# rounds go on from a soft one to .922 on the demo's task, from the best one to .917.
SOFTER = 3.0
_SHARPNESS = tuple(2.0 ** (step / 2) for step in range(-4, 15))
_DRAWS = 200  # of logits, for each class of a group


def choose_strength(sums: FleetSums) -> float:
    """Return the strength of the ridge with the least error on robots that are left out."""
    if len(sums.groups) < 2:
        return ALONE
    everything = sums.total
    errors = []
    for strength in STRENGTHS:
        wrong = 0.0
        for _, own in sums.groups.values():
            head = ridge(everything - own, strength, sums.width)
            wrong += float(class_errors(head, own.means) @ own.counts) + noise(head, own)
        errors.append(wrong)
    return STRENGTHS[int(np.argmin(errors))]


def class_errors(head: Head, means: Tensor) -> Tensor:
    """Return the squared error on the mean of each class, (classes,), of means (classes, axes)."""
    answers = means @ head.kernel + head.bias  # (classes, classes)
    errors: Tensor = ((np.eye(len(answers)) - answers) ** 2).sum(axis=1)
    return errors


def noise(head: Head, own: Moments) -> float:
    """Return the squared error of all frames around the means of their classes."""
    return float((head.kernel * (own.within @ head.kernel)).sum())


def choose_sharpness(sums: FleetSums, strength: float) -> float:
    """Return what the logits of a ridge are to be multiplied by; they are 0 to 1 otherwise.

    Robots that are left out are answered with the least cross-entropy by a factor; the result is
    softer by SOFTER. Logits of a class are taken to be normal, with the mean and covariance that
    the sums give them.
    """
    everything, drawn = sums.total, np.random.default_rng(0)
    logits: list[Tensor] = []
    truth: list[tuple[int, float]] = []  # class, frames
    for _, own in sums.groups.values():
        rest = everything - own if len(sums.groups) > 1 else everything
        head = ridge(rest, strength, sums.width)
        covariance = head.kernel.T @ (own.within / own.counts.sum()) @ head.kernel
        values, axes = np.linalg.eigh(covariance)
        spread = axes * np.sqrt(np.maximum(values, 0.0))  # (classes, classes)
        around = drawn.standard_normal((_DRAWS, len(values))) @ spread.T
        answers = own.means @ head.kernel + head.bias
        for index in np.flatnonzero(own.counts):
            logits.append(answers[index] + around)
            truth.append((int(index), float(own.counts[index])))
    losses = [_cross_entropy(logits, truth, factor) for factor in _SHARPNESS]
    return float(_SHARPNESS[int(np.argmin(losses))]) / SOFTER


def _cross_entropy(logits: list[Tensor], truth: list[tuple[int, float]], factor: float) -> float:
    loss = 0.0
    for answers, (right, frames) in zip(logits, truth, strict=True):
        scaled = factor * answers
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        loss += frames * float((np.log(np.exp(scaled).sum(axis=1)) - scaled[:, right]).mean())
    return loss
