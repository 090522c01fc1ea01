"""Whoever is nearest to the others (Krum, Blanchard et al. 2017, arXiv:1703.02757, section 4)."""

from collections.abc import Sequence

import numpy as np

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contribution, Contributions
from cloud_server.aggregation.options import require_between
from cloud_server.aggregation.votes import MEMORY_MB, numbers_of, pieces, votes_of
from fleet_model.errors import RoundError
from fleet_model.types import Checkpoint, Tensor, Weights

_WIDER = 4  # a distance needs the float32 numbers, and float64 of their difference and its square


class MultiKrum:
    """The plain mean of the `keep` updates with the lowest scores.

    The score of an update is the sum of its squared distances to the n - f - 2 nearest others, of n
    updates and f hostile robots. Every robot has one vote (votes.py): by examples that it claims it
    would weigh more. Distances are those of updates, in float64: weights are large against what a
    round changes, and in float32 their distances are mostly rounding.
    """

    def __init__(self, hostile: int = 1, keep: int = 0, memory_mb: float = MEMORY_MB) -> None:
        """Choose how many robots may be hostile.

        Args:
            hostile: f, 0 or more. At least 2 f + 3 robots must answer.
            keep: how many updates are averaged; 0: n - 2 f - 3, the most for which the paper proves
                something (at least one).
            memory_mb: room for one piece of a tensor, of all robots.

        Raises:
            SettingsError: one of them is out of range.
        """
        self._hostile = int(require_between("hostile", hostile, 0))
        self._keep = int(require_between("keep", keep, 0))
        self._numbers = max(1, numbers_of(memory_mb) // _WIDER)

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds memory_mb and two changes of all weights.

        Raises:
            RoundError: fewer robots answered than this takes.
        """
        votes = votes_of(contributions)
        if len(votes) < 2 * self._hostile + 3:
            raise RoundError(
                f"{len(votes)} robots answered, and against {self._hostile} hostile ones Krum "
                f"takes at least {2 * self._hostile + 3}: set rounds.quorum to that, or "
                "aggregation.options.hostile lower"
            )
        distances = self._distances(contributions, votes, checkpoint.weights)
        scores = krum_scores(distances, self._hostile)
        keep = self._keep or max(1, len(votes) - 2 * self._hostile - 3)
        chosen = [votes[i] for i in np.argsort(scores, kind="stable")[:keep]]
        return next_checkpoint(checkpoint, _plain_mean(contributions, chosen, checkpoint.weights))

    def _distances(
        self, contributions: Contributions, votes: Sequence[Contribution], like: Weights
    ) -> Tensor:
        """Return the squared distances, shape (votes, votes) float64."""
        distances = np.zeros((len(votes), len(votes)))
        for _, _, rows in pieces(contributions, votes, like, self._numbers):
            wide = rows.astype(np.float64)
            for i in range(len(votes) - 1):
                difference = wide[:, i + 1 :] - wide[:, i : i + 1]
                distances[i, i + 1 :] += np.einsum("rv,rv->v", difference, difference)
        return distances + distances.T


class Krum(MultiKrum):
    """The one update with the lowest score: nothing is averaged."""

    def __init__(self, hostile: int = 1, memory_mb: float = MEMORY_MB) -> None:
        """As MultiKrum, with one update to keep."""
        super().__init__(hostile, 1, memory_mb)


def krum_scores(distances: Tensor, hostile: int) -> Tensor:
    """Return the sum of squared distances to the n - f - 2 nearest others, shape (n,)."""
    nearest = max(1, len(distances) - hostile - 2)
    others = distances + np.diag(np.full(len(distances), np.inf))
    scores: Tensor = np.sort(others, axis=1)[:, :nearest].sum(axis=1)
    return scores


def _plain_mean(
    contributions: Contributions, chosen: Sequence[Contribution], like: Weights
) -> Weights:
    sums = {name: np.zeros(weights.shape) for name, weights in like.items()}
    for one in chosen:
        for name, total in sums.items():
            total += contributions.tensor(one, name)
    return {name: (total / len(chosen)).astype(np.float32) for name, total in sums.items()}
