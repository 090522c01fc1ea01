"""A small step towards the mean: residual aggregation with momentum."""

import numpy as np

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contributions
from cloud_server.aggregation.mean import average
from cloud_server.aggregation.options import require_between
from fleet_model.types import Checkpoint


class FloraResidual:
    """w <- w + momentum * sum_k (n_k / n) * (w_k - w).

    The residual of a robot is what it sends: its weights minus those that it was given. Of their
    mean only a part is taken in each round, so that no single round moves adapters far: an
    exponential mean over rounds. It remembers nothing, unlike the momentum of FedAvgM. Works with
    and without adapters. No paper is followed to the letter: the rule is that of
    `residual = update - previous, new = previous + momentum * mean(residual)`.
    """

    takes_means = True

    def __init__(self, momentum: float = 0.1, *, use_residual: bool = True) -> None:
        """Choose the part of a round that counts.

        Args:
            momentum: above 0, at most 1; 1 is FedAvg.
            use_residual: False: the mean itself, as in FedAvg, whatever the momentum.

        Raises:
            SettingsError: the momentum is out of range.
        """
        require_between("momentum", momentum, 0, np.nextafter(1, 2), above=True)
        self._part = np.float32(momentum if use_residual else 1)

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update and one float64 copy of the weights.

        Raises:
            RoundError: there is nothing to average.
        """
        mean = average(contributions, checkpoint.weights)
        return next_checkpoint(checkpoint, {name: self._part * d for name, d in mean.items()})
