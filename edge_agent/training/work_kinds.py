"""What a robot can be asked for: kind of request -> what its trainer does.

The server's side of each kind is cloud_server/rounds/reply_kinds.py.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from edge_agent.training.trainer import NoExamplesError, Trainer
from edge_agent.training.training_job import TrainingJob
from fleet_model.errors import TrainingError, UpdateError
from fleet_model.protocol.example_counts import (
    CONCERNS,
    HELD_OUT,
    UNREADABLE,
    as_metrics,
    counts_of,
    tell_left_out,
)
from fleet_model.types import EVALUATE, TRAIN, Example, Update
from fleet_model.workload import rebuild

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
    with examples.explained():
        update = trainer.fit(job.checkpoint, iter(examples), job.config)
    return examples.told_with(update)


def _evaluate(trainer: Trainer, job: TrainingJob) -> Update:
    evaluate = getattr(trainer, "evaluate", None)
    if evaluate is None:  # a trainer of the robot's owner, written before there were evaluations
        raise TrainingError(f"the trainer {job.trainer} cannot measure: it has no evaluate()")
    examples = _Examples(job)
    with examples.explained():
        update: Update = evaluate(job.checkpoint, iter(examples))
    measured = {**update.metrics, HELD_OUT: float(update.num_examples)}
    return examples.told_with(replace(update, metrics=measured))


class _Examples:
    """The examples of a job, to be gone over once; afterwards it knows what was left out."""

    def __init__(self, job: TrainingJob) -> None:
        self.learned = rebuild(job.spec.workload).task.learned
        self.labels = Counter[str]()  # of examples; pictures that cannot be read are among them
        self.left_out = Counter[str]()  # by kind
        self._source = job.examples.renamed(job.spec.task.former if job.spec.task else {})

    def __iter__(self) -> Iterator[Example]:
        for example in self._source.examples(self.learned, self.left_out):
            if example.label:
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
}
