"""What a robot can be asked for: kind of request -> what its trainer does.

The server's side of each kind is cloud_server/rounds/reply_kinds.py.
"""

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from edge_agent.models.personal.tensors import keep_own, with_own
from edge_agent.training.trainer import NoExamplesError, Trainer
from edge_agent.training.training_job import CORRECTION, TrainingJob
from fleet_model.durable import telling_of_the_disk
from fleet_model.errors import TrainingError, UpdateError
from fleet_model.protocol.example_counts import (
    CONCERNS,
    HELD_OUT,
    UNREADABLE,
    as_metrics,
    counts_of,
    tell_left_out,
)
from fleet_model.types import EVALUATE, PROFILE, SUMS, TRAIN, Checkpoint, Example, Update
from fleet_model.workload import rebuild, takes_instructions

log = logging.getLogger(__name__)


def work_of(kind: str) -> Callable[[Trainer, TrainingJob], Update]:
    """Return what answers a request; raises UpdateError for a kind that is not known here."""
    if kind not in WORK:
        raise UpdateError(
            f"this agent does not know requests of kind {kind!r:.40}, only {', '.join(WORK)}: "
            "update the agent"
        )
    return WORK[kind]


def _train(trainer: Trainer, job: TrainingJob) -> Update:
    examples = _Examples(job)
    start = _start(job)
    with examples.explained():
        if job.config.control_variates:
            update = _correcting(trainer, job).fit(
                start, iter(examples), job.config, correction=job.correction
            )
        else:
            update = trainer.fit(start, iter(examples), job.config)
    if job.personal:
        with telling_of_the_disk("own tensors cannot be kept", "give the robot's disk room"):
            update = keep_own(job.own, job.spec, job.personal, start, update)
    return examples.told_with(update)


def _start(job: TrainingJob) -> Checkpoint:
    """Return what is trained or measured: the server's checkpoint, with what this robot keeps."""
    if not job.personal:
        return job.checkpoint
    return with_own(job.own, job.spec, job.personal, job.checkpoint)


def _correcting(trainer: Any, job: TrainingJob) -> Any:
    """Return the trainer; raises TrainingError if it cannot correct its gradients.

    One of the robot's owner may have been written before there were any to correct.
    """
    if CORRECTION not in inspect.signature(trainer.fit).parameters:
        raise TrainingError(
            f"the trainer {job.trainer} cannot correct its gradients, which the rule scaffold asks "
            "for: its fit() has no argument correction (docs/extending.md)"
        )
    return trainer


def _evaluate(trainer: Trainer, job: TrainingJob) -> Update:
    evaluate = getattr(trainer, "evaluate", None)
    if evaluate is None:  # a trainer of the robot's owner, written before there were evaluations
        raise TrainingError(f"the trainer {job.trainer} cannot measure: it has no evaluate()")
    examples = _Examples(job)
    with examples.explained():
        update: Update = evaluate(_start(job), iter(examples))
    measured = {**update.metrics, HELD_OUT: float(update.num_examples)}
    return examples.told_with(replace(update, metrics=measured))


def _sums(trainer: Trainer, job: TrainingJob) -> Update:
    sums = getattr(trainer, "sums", None)
    if sums is None:  # a trainer of the robot's owner
        raise TrainingError(f"the trainer {job.trainer} cannot tell sums: it has no sums()")
    examples = _Examples(job)
    with examples.explained():
        update: Update = sums(job.checkpoint, iter(examples), job.config, job.sent)
    return examples.told_with(update)


def _profile(trainer: Trainer, job: TrainingJob) -> Update:
    profile = getattr(trainer, "profile", None)
    if profile is None:
        raise TrainingError(f"the trainer {job.trainer} makes no profiles: it has no profile()")
    examples = _Examples(job)
    with examples.explained():
        update: Update = profile(_start(job), iter(examples), job.sent)
    return examples.told_with(update)


class _Examples:
    """The examples of a job, to be gone over once; afterwards it knows what was left out."""

    def __init__(self, job: TrainingJob) -> None:
        workload = rebuild(job.spec.workload)
        task = workload.task
        self.learned, self._classes = task.learned, task.classes
        self._boxes, self._answers = task.answer == "boxes", takes_instructions(workload)
        self.labels = Counter[str]()  # by people; pictures that cannot be read are among them
        self.left_out = Counter[str]()  # by kind
        self._source = job.examples.renamed(job.spec.task.former if job.spec.task else {})

    def __iter__(self) -> Iterator[Example]:
        found = self._source.examples(
            self._classes, self.left_out, boxes=self._boxes, answers=self._answers
        )
        for example in found:
            if example.label and not example.taught:
                self.labels[example.label] += 1
            yield example

    def told_with(self, update: Update) -> Update:
        """Return the reply with what is known of the examples, and log what is doubtful."""
        if unreadable := round(update.metrics.get(UNREADABLE, 0)):
            self.left_out["unreadable"] += unreadable
        labels = len(self.labels) if self.learned else None
        update = replace(
            update,
            metrics={**update.metrics, **as_metrics(self.left_out, labels)},
            label_counts=tuple(self.labels[name] for name in self.learned),
        )
        counts = counts_of(update.num_examples, update.metrics, self.labels)
        for concern, numbers in counts.concerns.items():
            log.warning("%s (%s)", CONCERNS[concern], numbers)
        return update

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say of "no examples" why: numbers only, for the server reads it, too."""
        try:
            yield
        except NoExamplesError as error:
            if error.unreadable:
                self.left_out["unreadable"] += error.unreadable
            told = tell_left_out(self.left_out)
            why = f"left out are {told}; `edge-agent doctor` on the robot says which"
            hint = why if told else "record or label more frames"
            raise TrainingError(f"{error}: {hint}") from None


WORK: Mapping[str, Callable[[Trainer, TrainingJob], Update]] = {
    TRAIN: _train,
    EVALUATE: _evaluate,
    SUMS: _sums,
    PROFILE: _profile,
}
