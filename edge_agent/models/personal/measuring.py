"""Measure the shared model beside what this robot has of its own, in a child process of the agent.

The better one by the workload's first measure, on the robot's own held-out examples, is to run.
"""

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from edge_agent.examples.source import SourceSpec
from fleet_model.bundle import Task
from fleet_model.errors import FleetError, FrameError
from fleet_model.personal.choice import OWN_SHARES, OWN_TENSORS, Part, PersonalChoice
from fleet_model.personal.shares import share_shift, shifted, takes_shares
from fleet_model.types import Tensors
from fleet_model.workload import Workload

Uses: TypeAlias = tuple[Part, ...]
LEAST = 7  # held-out examples: fewer never refuse a model either (trial.py)
UNREADABLE = "this robot's examples cannot be read"
NOTHING = "this robot has nothing of its own"
NOT_BETTER = "this robot's own part is not better"
log = logging.getLogger(__name__)


class Truth(NamedTuple):
    """What a model answered to one example, and the truth."""

    outputs: Tensors
    target: Tensors


class Asked(NamedTuple):
    """What of this robot's own is measured beside the shared model."""

    own_shares: bool
    tensors: str  # file beside the bundle; "": there are none that can run
    no_tensors: str = ""  # why there are none that can run, if the robot has some

    @property
    def parts(self) -> Uses:
        """Return the same by name."""
        shares: Uses = (OWN_SHARES,) if self.own_shares else ()
        return (*shares, OWN_TENSORS) if self.tensors or self.no_tensors else shares

    def with_tensors(self, precision: str) -> PersonalChoice:
        """Return what an engine with the own tensors alone runs."""
        return PersonalChoice(precision=precision, uses=(OWN_TENSORS,), tensors=self.tensors)


@dataclass(frozen=True, eq=False, slots=True)
class Own:
    """How often this robot has each label."""

    counts: Mapping[str, float]  # label -> what its training examples weigh
    digest: str  # of the training and the held-out examples
    no_shares: str = ""  # why they cannot be added to this model's answers


def own_labels(workload: Workload, spec: Mapping[str, Any] | None, task: Task) -> Own:
    """Count the labels of this robot's training examples, by the names that the model has.

    No picture is decoded: a workload knows the truth without.

    Args:
        workload: of the model.
        spec: fields of SourceSpec; None: no examples.
        task: as the manifest describes it, with former names of labels.
    """
    if not takes_shares(workload):
        return Own({}, "", "its workload has no class bias that label shares could be added to")
    if spec is None:
        return Own({}, "", "this robot has no examples")
    counts: dict[str, float] = {}
    seen: list[str] = []
    (target,) = workload.task.targets
    try:
        source = SourceSpec(**spec).renamed(task.former)
        for example in source.examples(workload.task.classes, boxes=task.answer == "boxes"):
            try:
                truth = workload.target(example)
            except FrameError:
                continue
            label = workload.task.classes[int(truth.tensors[target])]
            if not example.held_out:
                counts[label] = counts.get(label, 0.0) + truth.weight
            seen.append(f"{example.key}\t{label}\t{truth.weight!r}\t{example.held_out}\n")
    except FleetError as error:
        log.warning("the own label shares are not known: %s", error)
        return Own({}, "", UNREADABLE)
    except Exception:  # of a source of the robot's owner
        log.exception("the own label shares are not known")
        return Own({}, "", UNREADABLE)
    if not counts:
        return Own({}, "", "this robot has no training examples")
    digest = hashlib.sha256("".join(sorted(seen)).encode()).hexdigest()
    return Own(dict(sorted(counts.items())), digest)


def choose(
    workload: Workload,
    precision: str,
    asked: Asked,
    own: Own,
    answers: Mapping[Uses, Sequence[Truth]],
) -> PersonalChoice:
    """Return what is to run: the shared model, unless the robot's own is better.

    Args:
        workload: of the model.
        precision: in which it was measured.
        asked: what may run.
        own: the robot's labels.
        answers: to the same held-out examples, of the shared model under (), and of the model with
            own tensors where it runs.
    """
    choice = PersonalChoice(
        precision=precision,
        asked=asked.parts,
        counts=dict(own.counts) if asked.own_shares else {},
        digest=own.digest,
        tensors=asked.tensors,
    )
    candidates = dict(answers)
    no_shares = own.no_shares if asked.own_shares else ""
    if asked.own_shares and not no_shares:
        shift = share_shift(workload, own.counts)
        for uses, told in answers.items():
            candidates[(OWN_SHARES, *uses)] = [
                one._replace(outputs=shifted(one.outputs, shift)) for one in told
            ]
    why = "; ".join(filter(None, (no_shares, asked.no_tensors)))
    if not candidates.keys() - {()}:
        return choice.model_copy(update={"why": why or NOTHING})
    if cannot := _cannot_decide(answers[()]):
        return choice.model_copy(update={"why": cannot})
    name, better = next(iter(workload.task.measures.items()))
    found = {"measure": name, "examples": len(answers[()]), "why": why}
    sign = 1.0 if better == "higher" else -1.0
    values = {uses: measured(workload, name, told) for uses, told in candidates.items()}
    if not all(map(math.isfinite, values.values())):
        return choice.model_copy(update={**found, "why": f"{name} is no number"})
    # Of equals the one with the least of its own: the shared model first.
    ranked = sorted(values, key=lambda uses: (-sign * values[uses], OWN_TENSORS in uses, len(uses)))
    others = [uses for uses in ranked if uses]
    found |= {"shared": values[()], "personal": values[others[0]]}
    if ranked[0]:
        return choice.model_copy(update={**found, "uses": ranked[0]})
    return choice.model_copy(update={**found, "why": NOT_BETTER})


def _cannot_decide(answers: Sequence[Truth]) -> str:
    """Return why these examples cannot tell which model is better; "" if they can."""
    if len(answers) < LEAST:
        return f"{len(answers)} held-out examples with a label, at least {LEAST} are needed"
    truths = {tuple(np.asarray(t).tobytes() for t in one.target.values()) for one in answers}
    # A model that gives the one label to everything would look perfect.
    return "all held-out examples have the same label" if len(truths) < 2 else ""


def measured(workload: Workload, name: str, answers: Sequence[Truth]) -> float:
    """Return one measure over a batch of answers; NaN if the workload does not give it."""
    outputs, targets = (
        {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        for rows in zip(*((one.outputs, one.target) for one in answers), strict=True)
    )
    return float(workload.measure(outputs, targets).get(name, np.nan))
