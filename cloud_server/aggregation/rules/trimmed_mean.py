"""Coordinate-wise trimmed mean (Yin et al. 2018, arXiv:1803.01498, Algorithm 1, option II)."""

import math

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contributions
from cloud_server.aggregation.options import require_between
from cloud_server.aggregation.votes import MEMORY_MB, number_by_number, numbers_of, votes_of
from fleet_model.errors import RoundError
from fleet_model.types import Checkpoint, Tensor


class TrimmedMean:
    """Of each number the largest and the smallest values are left out, and the rest is averaged.

    floor(share * robots) at each end. As many hostile robots pull no number beyond what the others
    have sent. Every robot has one vote (votes.py).
    """

    def __init__(self, share: float = 0.2, memory_mb: float = MEMORY_MB) -> None:
        """Choose how many are left out.

        Args:
            share: of the robots, at each end, above 0 and below 0.5.
            memory_mb: room for one piece of a tensor, of all robots.

        Raises:
            SettingsError: one of them is out of range.
        """
        self._share = require_between("share", share, 0, 0.5, above=True)
        self._numbers = numbers_of(memory_mb)

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds memory_mb and one change of all weights.

        Raises:
            RoundError: so few robots answered that nothing would be left out.
        """
        votes = votes_of(contributions)
        cut = math.floor(self._share * len(votes) + 1e-9)  # .29 * 100 is 28.999999999999996
        if not cut:
            needed = math.ceil(1 / self._share - 1e-9)
            raise RoundError(
                f"{len(votes)} robots answered, and of them a trimmed mean with the share "
                f"{self._share:g} leaves out nobody: set rounds.quorum = {needed} at least, or "
                'aggregation.rule = "median"'
            )

        def trimmed(rows: Tensor) -> Tensor:
            rows.partition((cut, len(votes) - cut - 1), axis=1)
            kept: Tensor = rows[:, cut : len(votes) - cut].mean(axis=1, dtype="float64")
            return kept

        change = number_by_number(contributions, votes, checkpoint.weights, trimmed, self._numbers)
        return next_checkpoint(checkpoint, change)
