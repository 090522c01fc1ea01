"""Coordinate-wise median (Yin et al. 2018, arXiv:1803.01498, Algorithm 1, option I)."""

import numpy as np

from cloud_server.aggregation.contributions import Contribution, Contributions
from fleet_model.errors import RoundError, SettingsError
from fleet_model.types import Checkpoint, Tensor
from fleet_model.weights import add

_BYTES = 4  # of a float32


class Median:
    """w <- w + med_k (w_k - w), number by number; of an even count, the mean of the middle two.

    Fewer than half of the robots can pull no number beyond what the others have sent. Every robot
    has one vote, whatever its examples: a robot cannot gain weight by what it claims. If a robot
    has several updates in a round, which happens in buffered mode, its newest one is its vote.
    """

    def __init__(self, memory_mb: float = 64.0) -> None:
        """Choose how much of the updates is in memory.

        Args:
            memory_mb: room for one piece of a tensor, of all robots. More robots make the pieces
                smaller and their number larger.

        Raises:
            SettingsError: it is not above 0.
        """
        if not memory_mb > 0:
            raise SettingsError(f"memory_mb is {memory_mb:g}, expected above 0")
        self._numbers = int(memory_mb * 1e6 / _BYTES)

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds memory_mb and one change of all weights.

        Raises:
            RoundError: there is no update.
        """
        votes = list({one.robot: one for one in contributions}.values())  # the last is the newest
        if not votes:
            raise RoundError("no update to take the median of")
        change = {
            name: self._median(contributions, votes, name, weights)
            for name, weights in checkpoint.weights.items()
        }
        return Checkpoint(
            version=checkpoint.version + 1,
            weights=add(checkpoint.weights, change),
            server_state=checkpoint.server_state,
            seed=checkpoint.seed,
        )

    def _median(
        self, contributions: Contributions, votes: list[Contribution], name: str, like: Tensor
    ) -> Tensor:
        result = np.empty(like.size, np.float32)
        length = max(1, min(like.size, self._numbers // len(votes)))
        piece = np.empty((length, len(votes)), np.float32)  # a row has one number of all robots
        for start in range(0, like.size, length):
            stop = min(start + length, like.size)
            rows = piece[: stop - start]
            for column, one in enumerate(votes):
                rows[:, column] = contributions.numbers(one, name, start, stop)
            result[start:stop] = _middle(rows)
        return result.reshape(like.shape)


def _middle(rows: Tensor) -> Tensor:
    """Return the median of each row, shape (rows,) float32; the rows are left in another order."""
    low, high = (rows.shape[1] - 1) // 2, rows.shape[1] // 2
    rows.partition((low, high), axis=1)
    middle: Tensor = (rows[:, low].astype(np.float64) + rows[:, high]) / 2  # float32 may overflow
    return middle.astype(np.float32)
