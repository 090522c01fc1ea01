"""The end of a round: judge what was kept, then let the rule fold it, in the order of names."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cloud_server.aggregation.aggregator import Aggregator
from cloud_server.aggregation.contributions import Contribution
from cloud_server.rounds.reply_spool import Kept
from cloud_server.rounds.round_journal import RoundJournal
from cloud_server.rounds.update_checks import (
    NORMS,
    accepted_norms,
    largest_norm,
    remember_norms,
    weight_of,
)
from cloud_server.state.round_record import RobotRecord
from cloud_server.state.settings import CheckSettings
from fleet_model.errors import RoundError
from fleet_model.protocol.outcome import ACCEPTED, Outcome
from fleet_model.types import Checkpoint, Tensor, Update
from fleet_model.weights import require_same_tensors


@dataclass(frozen=True, slots=True)
class Judged:
    """The kept replies of a round with their last verdict, in the order of folding."""

    accepted: tuple[Kept, ...]
    others: tuple[Kept, ...]


class KeptContributions:
    """The accepted replies of a journal as a rule sees them. No update is held in here."""

    def __init__(
        self,
        journal: RoundJournal,
        accepted: Iterable[Kept],
        checkpoint: Checkpoint,
        checks: CheckSettings,
    ) -> None:
        """Take the replies in the order in which the rule is to see them."""
        self._journal = journal
        self._shapes = {name: weights.shape for name, weights in checkpoint.weights.items()}
        self._kept = {
            Contribution(
                robot=one.robot,
                site=one.site,
                examples=weight_of(one.num_examples, checks),
                staleness=checkpoint.version - one.base_version,
                norm=one.norm,
            ): one
            for one in accepted
        }

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Contribution]:
        return iter(self._kept)

    def update(self, one: Contribution) -> Update:
        """As Contributions says; so are the others."""
        return replace(self._journal.read(self._kept[one]), num_examples=one.examples)

    def tensor(self, one: Contribution, name: str) -> Tensor:  # noqa: D102
        shape = self._shapes[name]
        return self.numbers(one, name, 0, math.prod(shape)).reshape(shape)

    def numbers(self, one: Contribution, name: str, start: int, stop: int) -> Tensor:  # noqa: D102
        start, stop, _ = slice(start, stop).indices(math.prod(self._shapes[name]))
        return self._journal.numbers(self._kept[one], name, start, stop)


def judge(kept: Iterable[Kept], checkpoint: Checkpoint, checks: CheckSettings) -> Judged:
    """Compare lengths, now that all are known; the order in which they came does not matter."""
    replies = sorted(kept, key=lambda one: (one.robot, one.base_version))
    candidates = [one for one in replies if one.verdict == ACCEPTED]
    largest = largest_norm([one.norm for one in candidates], accepted_norms(checkpoint), checks)
    too_long = {one.ticket for one in candidates if one.norm > largest}
    return Judged(
        accepted=tuple(one for one in candidates if one.ticket not in too_long),
        others=tuple(
            replace(one, verdict=_too_long(one, largest, checks)) if one.ticket in too_long else one
            for one in replies
            if one.verdict != ACCEPTED or one.ticket in too_long
        ),
    )


def fold(
    aggregator: Aggregator,
    journal: RoundJournal,
    accepted: Sequence[Kept],
    checkpoint: Checkpoint,
    checks: CheckSettings,
) -> Checkpoint:
    """Return the next checkpoint.

    Raises:
        RoundError: the rule has made something that is not finite or does not fit.
        StorageError: a kept update is damaged on disk.
    """
    contributions = KeptContributions(journal, accepted, checkpoint, checks)
    result = aggregator.fold(checkpoint, contributions)
    require_same_tensors(  # finite updates may add up to infinity; the rule may be the user's own
        checkpoint.weights, result.weights, sender="aggregator", error=RoundError
    )
    norms = remember_norms(accepted_norms(checkpoint), [one.norm for one in accepted])
    return replace(result, server_state={**result.server_state, NORMS: norms})


def robot_records(
    judged: Judged, silent: Mapping[str, RobotRecord], version: int, checks: CheckSettings
) -> tuple[RobotRecord, ...]:
    """Return one record a robot, by name; where a robot answered twice, the good answer."""
    records = dict(silent)
    for one in (*judged.others, *judged.accepted):
        records[one.robot] = _record(one, version, checks)
    return tuple(records[name] for name in sorted(records))


def _record(kept: Kept, version: int, checks: CheckSettings) -> RobotRecord:
    good = kept.verdict == ACCEPTED
    return RobotRecord(
        name=kept.robot,
        site=kept.site,
        outcome=kept.verdict,
        num_examples=kept.num_examples,
        num_steps=kept.num_steps,
        update_bytes=kept.update_bytes,
        metrics=kept.metrics,
        norm=kept.norm,
        weight=weight_of(kept.num_examples, checks) if good else 0,
        staleness=version - kept.base_version if good else 0,
        capped=kept.num_examples > checks.max_examples_per_robot,
    )


def _too_long(kept: Kept, largest: float, checks: CheckSettings) -> Outcome:
    median = largest / checks.max_norm_ratio
    return Outcome(
        "refused",
        f"its length (L2) {kept.norm:.4g} is {kept.norm / median:.4g} times the median "
        f"{median:.4g} of recent updates, expected at most {checks.max_norm_ratio:g} times "
        "(checks.max_norm_ratio)",
    )
