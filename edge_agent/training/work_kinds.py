"""What a robot can be asked for: kind of request -> what its trainer does.

The server's side of each kind is cloud_server/rounds/reply_kinds.py.
"""

from collections.abc import Callable, Iterator, Mapping

from edge_agent.examples.source import learned_labels
from edge_agent.training.trainer import Trainer
from edge_agent.training.training_job import TrainingJob
from fleet_model.errors import TrainingError, UpdateError
from fleet_model.types import EVALUATE, TRAIN, Example, Update
from fleet_model.workload import rebuild


def work_of(kind: str) -> Callable[[Trainer, TrainingJob], Update]:
    """Return what answers a request; raises UpdateError for a kind that is not known here."""
    if kind not in WORK:
        raise UpdateError(
            f"this agent does not know requests of kind {kind!r:.40}, only {', '.join(WORK)}: "
            "update the agent"
        )
    return WORK[kind]


def _train(trainer: Trainer, job: TrainingJob) -> Update:
    return trainer.fit(job.checkpoint, _examples(job), job.config)


def _evaluate(trainer: Trainer, job: TrainingJob) -> Update:
    evaluate = getattr(trainer, "evaluate", None)
    if evaluate is None:  # a trainer of the robot's owner, written before there were evaluations
        raise TrainingError(f"the trainer {job.trainer} cannot measure: it has no evaluate()")
    update: Update = evaluate(job.checkpoint, _examples(job))
    return update


def _examples(job: TrainingJob) -> Iterator[Example]:
    return job.examples.examples(learned_labels(rebuild(job.spec.workload).task))


WORK: Mapping[str, Callable[[Trainer, TrainingJob], Update]] = {
    TRAIN: _train,
    EVALUATE: _evaluate,
}
