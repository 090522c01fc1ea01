"""Coordinate-wise median (Yin et al. 2018, arXiv:1803.01498, Algorithm 1, option I)."""

import numpy as np

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contributions
from cloud_server.aggregation.votes import MEMORY_MB, number_by_number, numbers_of, votes_of
from fleet_model.errors import RoundError
from fleet_model.types import Checkpoint, Tensor


class Median:
    """w <- w + med_k (w_k - w), number by number; of an even count, the mean of the middle two.

    Fewer than half of the robots can pull no number beyond what the others have sent. Every robot
    has one vote (votes.py).
    """

    def __init__(self, memory_mb: float = MEMORY_MB) -> None:
        """Choose how much of the updates is in memory.

        Args:
            memory_mb: room for one piece of a tensor, of all robots. More robots make the pieces
                smaller and their number larger.

        Raises:
            SettingsError: it is not above 0.
        """
        self._numbers = numbers_of(memory_mb)

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds memory_mb and one change of all weights.

        Raises:
            RoundError: there is no update.
        """
        votes = votes_of(contributions)
        if not votes:
            raise RoundError("no update to take the median of")
        change = number_by_number(contributions, votes, checkpoint.weights, _middle, self._numbers)
        return next_checkpoint(checkpoint, change)


def _middle(rows: Tensor) -> Tensor:
    """Return the median of each row, shape (rows,) float32; the rows are left in another order."""
    low, high = (rows.shape[1] - 1) // 2, rows.shape[1] // 2
    rows.partition((low, high), axis=1)
    middle: Tensor = (rows[:, low].astype(np.float64) + rows[:, high]) / 2  # float32 may overflow
    return middle.astype(np.float32)
