"""What robots can be asked for: how each kind of reply is checked, compared, kept and used.

The round loop looks a request's kind up in a table and knows nothing else of it. A new kind is an
entry here, and a handler on the robot (edge_agent/training/work_kinds.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cloud_server.aggregation.aggregator import Aggregator
from cloud_server.rounds.folding import fold
from cloud_server.rounds.round_journal import RoundJournal
from cloud_server.rounds.shares import Share, norm_of
from cloud_server.rounds.update_checks import check_reply, check_update
from cloud_server.state.learning_settings import CheckSettings
from cloud_server.state.round_record import RobotRecord, mean_metrics, weighted_means
from fleet_model.errors import RoundError, UpdateError
from fleet_model.protocol.example_counts import is_count
from fleet_model.types import EVALUATE, TRAIN, Checkpoint, Metrics, Update


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class RoundEnd:
    """What there is when enough good replies have been kept."""

    checkpoint: Checkpoint  # that robots were sent
    accepted: Sequence[Share]  # in the order of robots' names
    journal: RoundJournal  # gives back what each of them holds
    rule: Aggregator | None  # of the run; None where nothing is folded


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyKind:
    """One kind of reply."""

    # (reply, checkpoint, version that the robot was sent, bounds); raises UpdateError. The journal
    # keeps a reply that passes, with all its tensors, bit for bit.
    check: Callable[[Update, Checkpoint, int, CheckSettings], None]
    # Of replies that are much longer than the others a part counts; 0 where length says nothing.
    length: Callable[[Update], float]
    # Makes the checkpoint that the round ends with; raises RoundError.
    use: Callable[[RoundEnd], Checkpoint]
    # Measures of the whole round.
    means: Callable[[Sequence[RobotRecord], CheckSettings], Metrics]


def check_evaluation(
    update: Update, checkpoint: Checkpoint, asked_version: int, checks: CheckSettings
) -> None:
    """Raise UpdateError unless an evaluation holds measures of examples, and no tensors."""
    check_reply(update, asked_version, checks)
    if update.weights or update.groups:
        raise UpdateError("an evaluation holds measures only, this one has tensors")
    if not any(math.isfinite(value) for value in measures_in(update.metrics).values()):
        raise UpdateError("the evaluation has no measures")


def mean_measures(records: Sequence[RobotRecord], _: CheckSettings) -> Metrics:
    """Average what accepted robots measured, weighted by the examples that count."""
    told = [(measures_in(one.metrics), one.weight) for one in records if one.accepted]
    return weighted_means(told)


def measures_in(metrics: Metrics) -> Metrics:
    """Return what an evaluation has measured, without what it counts."""
    return {name: value for name, value in metrics.items() if not is_count(name)}


def _fold(end: RoundEnd) -> Checkpoint:
    if end.rule is None:
        raise RoundError("a round of training needs an aggregation rule")
    return fold(end.rule, end.journal, end.accepted, end.checkpoint)


KINDS: Mapping[str, ReplyKind] = {
    TRAIN: ReplyKind(
        check=check_update,
        length=lambda update: norm_of(update.weights),
        use=_fold,
        means=lambda records, checks: mean_metrics(records, checks.max_examples_ratio),
    ),
    EVALUATE: ReplyKind(
        check=check_evaluation,
        length=lambda _: 0.0,
        use=lambda end: end.checkpoint,  # measuring changes nothing
        means=mean_measures,
    ),
}
