"""Add a robot's unlabelled examples to those that it trains on, where its model is surely right.

It is done anew in every round, by the model that the round starts from. So nothing is kept that a
newer model would say otherwise, and a label that somebody gives takes the place at once.
"""

import logging
import math
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edge_agent.training.pseudo_labels.calibration import least_scores
from edge_agent.training.rows import Rows, stacked
from fleet_model.protocol.pseudo_counts import as_metrics
from fleet_model.types import Metrics, PseudoLabel, Tensor, Tensors
from fleet_model.workload import OwnTruth, Workload

log = logging.getLogger(__name__)


def can_teach_itself(workload: Any) -> bool:
    """Return whether a workload knows its own sure answers; see Workload."""
    return hasattr(workload, "certainty") and hasattr(workload, "own_truth")


def with_own_truths(
    workload: Workload,
    answers: Callable[[Rows], Tensors],
    known: tuple[Rows, Rows],
    unknown: Rows,
    rule: PseudoLabel,
    taught: Container[str] = (),
) -> tuple[Rows, Metrics]:
    """Return what to train on, and what is told of it.

    Args:
        workload: what is learned.
        answers: outputs of the model that the round starts from, (rows, *output shape) each.
        known: training and held-out examples.
        unknown: examples without a truth, whose targets hold no tensors yet.
        rule: how sure, and what they count.
        taught: keys of training examples that a teacher has labelled, and no person.

    Returns:
        The training examples, with those of `unknown` behind them that have a truth now.
    """
    training, held_out = known
    classes = workload.task.classes
    if not len(held_out):
        log.warning("no pseudo-labels: nothing is held out to find out when the model is right")
        return training, {}
    truth = stacked([target.tensors for target in held_out.targets], len(held_out))
    certainty = workload.certainty(answers(held_out), truth)  # type: ignore[attr-defined]
    least = least_scores(certainty, len(classes), rule.precision)
    taken = _taken(workload, answers(unknown), unknown, least) if np.isfinite(least).any() else {}
    task = workload.task
    if task.learned and [spec.shape for spec in task.targets.values()] == [()]:  # one class each
        taken = _limited(taken, training, len(classes), taught)
    counts = np.zeros(len(classes), int)
    for found in taken.values():
        counts += np.bincount(found.classes, minlength=len(classes))
    for index in np.flatnonzero(np.isinf(least)):
        log.info("no pseudo-labels of %s: it is not sure enough of them here", classes[index])
    log.info("pseudo-labels: %d of %d unlabelled examples", len(taken), len(unknown))
    weights = [own.target.weight for own in taken.values()]
    weight = math.fsum(weights) / len(weights) if weights else rule.weight
    told = as_metrics(len(unknown), len(taken), weight, least, counts)
    picked = list(taken)
    return Rows(
        [*training.features, *(unknown.features[place] for place in picked)],
        [*training.targets, *(own.target for own in taken.values())],
        [*training.keys, *(unknown.keys[place] for place in picked)],
    ), told


def _taken(workload: Any, outputs: Tensors, unknown: Rows, least: Tensor) -> Mapping[int, OwnTruth]:
    """Return place -> truth, weighed, of the examples whose answers are all sure enough."""
    taken: dict[int, OwnTruth] = {}
    for place, given in enumerate(unknown.targets):
        row = {name: tensor[place] for name, tensor in outputs.items()}
        if found := workload.own_truth(row, least):
            weight = found.target.weight * given.weight
            taken[place] = found._replace(target=replace(found.target, weight=weight))
    return taken


def _limited(
    taken: Mapping[int, OwnTruth], training: Rows, classes: int, taught: Container[str]
) -> Mapping[int, OwnTruth]:
    """Return them such that a class weighs together at most as much as people's examples of it.

    A model is often sure of the commonest class alone, and would learn little else of these.
    """
    known, found = np.zeros(classes), np.zeros(classes)
    for key, target in zip(training.keys, training.targets, strict=True):
        if key in taught:
            continue
        (index,) = target.tensors.values()
        known[int(index)] += target.weight
    for own in taken.values():
        found[own.classes[0]] += 1
    limited = dict[int, OwnTruth]()
    for place, own in taken.items():
        index = own.classes[0]
        if known[index]:
            weight = min(own.target.weight, float(known[index] / found[index]))
            limited[place] = own._replace(target=replace(own.target, weight=weight))
    return limited
