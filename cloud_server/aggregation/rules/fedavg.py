"""Federated averaging (McMahan et al. 2017, arXiv:1602.05629, Algorithm 1)."""

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contributions
from cloud_server.aggregation.mean import average
from fleet_model.types import Checkpoint


class FedAvg:
    """w <- w + sum_k (n_k / n) * s_k * (w_k - w).

    n_k are the examples of robot k, s_k the discount for its age (FedBuff, arXiv:2106.06639), n the
    examples of all. An old update shortens the step: its robot's examples count in n undiscounted.
    """

    takes_means = True

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update and one float64 copy of the weights.

        Raises:
            RoundError: there is nothing to average.
        """
        return next_checkpoint(checkpoint, average(contributions, checkpoint.weights))
