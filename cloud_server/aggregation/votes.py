"""What rules do that must see the same numbers of all robots at once: in pieces, in bounded memory.

Every robot has one vote, whatever its examples: a robot cannot gain weight by what it claims. If a
robot has several updates in a round, which happens in buffered mode, its newest one is its vote.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cloud_server.aggregation.contributions import Contribution, Contributions
from fleet_model.errors import SettingsError
from fleet_model.types import Tensor, Weights

MEMORY_MB = 64.0
_BYTES = 4  # of a float32


def votes_of(contributions: Contributions) -> list[Contribution]:
    """Return the newest update of each robot, by robot."""
    return list({one.robot: one for one in contributions}.values())


def numbers_of(memory_mb: float) -> int:
    """Return how many float32 numbers fit into the memory.

    Raises:
        SettingsError: it is not above 0.
    """
    if not memory_mb > 0:
        raise SettingsError(f"memory_mb is {memory_mb:g}, expected above 0")
    return int(memory_mb * 1e6 / _BYTES)


def number_by_number(
    contributions: Contributions,
    votes: Sequence[Contribution],
    like: Weights,
    reduce: Callable[[Tensor], Tensor],
    numbers: int,
) -> Weights:
    """Return what `reduce` makes of each number of the votes, float32.

    Args:
        contributions: the updates.
        votes: of them; at least one.
        like: tensors of the names and shapes that updates have.
        reduce: (rows, votes) float32, which it may change, -> (rows,). A row is one number of all.
        numbers: that are in memory at once.
    """
    made = {name: np.empty(weights.size, np.float32) for name, weights in like.items()}
    for name, start, rows in pieces(contributions, votes, like, numbers):
        made[name][start : start + len(rows)] = reduce(rows)
    return {name: made[name].reshape(weights.shape) for name, weights in like.items()}


def pieces(
    contributions: Contributions, votes: Sequence[Contribution], like: Weights, numbers: int
) -> Iterator[tuple[str, int, Tensor]]:
    """Yield (name, start, rows) of all tensors; the rows are (numbers, votes) float32, used again.

    More robots make the pieces smaller and their number larger.
    """
    for name, weights in like.items():
        length = max(1, min(weights.size, numbers // len(votes)))
        piece = np.empty((length, len(votes)), np.float32)
        for start in range(0, weights.size, length):
            stop = min(start + length, weights.size)
            rows = piece[: stop - start]
            for column, one in enumerate(votes):
                rows[:, column] = contributions.numbers(one, name, start, stop)
            yield name, start, rows
