"""The end of a round: weigh what was kept, then let the rule fold it, in the order of names."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cloud_server.aggregation.aggregator import Aggregator
from cloud_server.aggregation.contributions import Contribution
from cloud_server.rounds.reply_spool import Kept
from cloud_server.rounds.round_journal import RoundJournal
from cloud_server.rounds.shares import NORMS, Share, recent_norms, remember_norms, shares
from cloud_server.state.learning_settings import CheckSettings
from cloud_server.state.round_record import RobotRecord
from fleet_model.adapters.spec import is_residual, residual_shapes
from fleet_model.errors import RoundError
from fleet_model.protocol.outcome import ACCEPTED, Outcome
from fleet_model.protocol.relayed import LOW
from fleet_model.types import Checkpoint, Tensor, Update
from fleet_model.weights import require_same_tensors

# A robot whose examples count as fewer is named. Half of an honest fleet has more than the median.
FAR_MORE = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """The kept replies of a round, in the order of folding."""

    accepted: tuple[Share, ...]
    others: tuple[Kept, ...]


class KeptContributions:
    """The accepted replies of a journal as a rule sees them. No update is held in here.

    Of what robots are sent and do not train (residuals of adapters) every update is zero.
    """

    def __init__(
        self, journal: RoundJournal, accepted: Iterable[Share], checkpoint: Checkpoint
    ) -> None:
        """Take the replies in the order in which the rule is to see them."""
        self._journal = journal
        self._shapes = {name: weights.shape for name, weights in checkpoint.weights.items()}
        self._shares = {
            Contribution(
                robot=one.kept.robot,
                site=one.kept.site,
                examples=one.weight,
                staleness=checkpoint.version - one.kept.base_version,
                norm=one.norm,
                steps=one.kept.num_steps,
            ): one
            for one in accepted
        }

    def __len__(self) -> int:
        return len(self._shares)

    def __iter__(self) -> Iterator[Contribution]:
        return iter(self._shares)

    def update(self, one: Contribution) -> Update:
        """As Contributions says; so are the others."""
        share = self._shares[one]
        update = self._journal.read(share.kept)
        weights = {name: share.cut(tensor) for name, tensor in update.weights.items()}
        for name in filter(is_residual, self._shapes):
            weights[name] = _zeros(self._shapes[name])
        # The last bits that a relay sends beside a mean count only where all of it counts.
        counts = not share.is_cut and one.examples == share.kept.num_examples
        groups = {name: g for name, g in update.groups.items() if counts or name != LOW}
        return replace(update, weights=weights, groups=groups, num_examples=one.examples)

    def tensor(self, one: Contribution, name: str) -> Tensor:  # noqa: D102
        shape = self._shapes[name]
        return self.numbers(one, name, 0, math.prod(shape)).reshape(shape)

    def numbers(self, one: Contribution, name: str, start: int, stop: int) -> Tensor:  # noqa: D102
        start, stop, _ = slice(start, stop).indices(math.prod(self._shapes[name]))
        if is_residual(name):
            return _zeros((max(0, stop - start),))
        share = self._shares[one]
        return share.cut(self._journal.numbers(share.kept, name, start, stop))


def judge(kept: Iterable[Kept], checkpoint: Checkpoint, checks: CheckSettings) -> Judged:
    """Weigh the replies, now that all are known; the order in which they came does not matter."""
    replies = sorted(kept, key=lambda one: (one.robot, one.base_version))
    good = [one for one in replies if one.verdict == ACCEPTED]
    return Judged(
        accepted=tuple(shares(good, checkpoint, checks)),
        others=tuple(one for one in replies if one.verdict != ACCEPTED),
    )


def fold(
    aggregator: Aggregator,
    journal: RoundJournal,
    accepted: Sequence[Share],
    checkpoint: Checkpoint,
) -> Checkpoint:
    """Return the next checkpoint.

    Raises:
        RoundError: the rule has made something that is not finite or does not fit.
        StorageError: a kept update is damaged on disk.
    """
    contributions = KeptContributions(journal, accepted, checkpoint)
    result = aggregator.fold(checkpoint, contributions)
    expected = dict(checkpoint.weights)
    for name, shape in residual_shapes(expected).items():  # a rule may begin one
        if name in result.weights and name not in expected:
            expected[name] = _zeros(shape)
    require_same_tensors(  # finite updates may add up to infinity; the rule may be the user's own
        expected, result.weights, sender="aggregator", error=RoundError
    )
    norms = remember_norms(recent_norms(checkpoint), [one.norm for one in accepted])
    return replace(result, server_state={**result.server_state, NORMS: norms})


def _zeros(shape: tuple[int, ...]) -> Tensor:
    """Return zeros that take no memory; they cannot be written to."""
    zeros: Tensor = np.broadcast_to(np.float32(0), shape)
    return zeros


def robot_records(
    judged: Judged, silent: Mapping[str, RobotRecord], version: int
) -> tuple[RobotRecord, ...]:
    """Return one record a robot, by name; where a robot answered twice, the good answer."""
    records = dict(silent)
    for kept in judged.others:
        records[kept.robot] = _record(kept)
    for share in judged.accepted:
        kept = share.kept
        records[kept.robot] = replace(
            _record(kept),
            outcome=Outcome("accepted", _less(share)),
            weight=share.weight,
            staleness=version - kept.base_version,
            capped=share.weight < kept.num_examples,
            cut_to=share.norm if share.is_cut else 0.0,
        )
    return tuple(records[name] for name in sorted(records))


def _record(kept: Kept) -> RobotRecord:
    return RobotRecord(
        name=kept.robot,
        site=kept.site,
        outcome=kept.verdict,
        num_examples=kept.num_examples,
        num_steps=kept.num_steps,
        update_bytes=kept.update_bytes,
        codec=kept.codec,
        metrics=kept.metrics,
        norm=kept.norm,
        label_counts=kept.label_counts,
        speaks_for=kept.speaks_for,
    )


def _less(share: Share) -> str:
    """Return how much less than it was counts of a reply, "" if that is nothing to speak of."""
    kept, words = share.kept, []
    if kept.num_examples > FAR_MORE * share.weight:
        words.append(f"{kept.num_examples} examples count as {share.weight}: {share.most}")
    if share.is_cut:
        cut = f"its length (L2) {kept.norm:.4g} is cut to {share.norm:.4g}"
        words.append(f"{cut}: {share.longest}")
    return f", but {'; and '.join(words)}" if words else ""
