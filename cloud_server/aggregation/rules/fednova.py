"""Normalized averaging (FedNova, Wang et al. 2020, arXiv:2007.07481, equations 10 and 11)."""

import logging
from statistics import median_low

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contribution, Contributions
from cloud_server.aggregation.mean import average, examples_in
from cloud_server.aggregation.options import require_between
from fleet_model.protocol.control import reach as reach_of
from fleet_model.types import Checkpoint

log = logging.getLogger(__name__)


class FedNova:
    """w <- w + t * sum_k p_k * s_k * (w_k - w) / t_k, where t = sum_k p_k * t_k, p_k = n_k / n.

    t_k is how far the steps of robot k carry: their number, and with momentum r
    (t - r * (1 - r^t) / (1 - r)) / (1 - r), the sum of the paper's vector a_k. A robot with more
    examples takes more steps and goes further; the mean of FedAvg then pulls towards it twice.

    How many steps it took is a robot's own word. As the step of all is as long as the mean of t_k,
    many more than the median robot's count as a bounded number, and the log names the robot.
    """

    gradient_steps = True

    def __init__(self, momentum: float = 0.9, max_steps_ratio: float = 10.0) -> None:
        """Say how robots train.

        Args:
            momentum: as `momentum` in [training], 0 to below 1.
            max_steps_ratio: steps of a robot that count, against the lower median, at least 1.

        Raises:
            SettingsError: one of them is out of range.
        """
        self._momentum = require_between("momentum", momentum, 0, 1)
        self._most = require_between("max_steps_ratio", max_steps_ratio, 1)

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update and one float64 copy of the weights.

        Raises:
            RoundError: there is nothing to average.
        """
        examples = examples_in(contributions)
        most = int(self._most * median_low([max(1, one.steps) for one in contributions]))
        for one in contributions:
            if one.steps > most:
                log.warning(
                    "%s: of %d steps that it says it took %d count", one.robot, one.steps, most
                )

        def reach(one: Contribution) -> float:
            return reach_of(min(max(1, one.steps), most), self._momentum)

        mean_reach = sum(one.examples * reach(one) for one in contributions) / examples
        change = average(
            contributions,
            checkpoint.weights,
            lambda one: one.examples / reach(one),
            total=examples / mean_reach,
        )
        return next_checkpoint(checkpoint, change)
