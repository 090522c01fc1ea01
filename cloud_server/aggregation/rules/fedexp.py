"""Longer steps where robots disagree (FedExP, Jhunjhunwala et al. 2023, arXiv:2301.09604)."""

import numpy as np

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contributions
from cloud_server.aggregation.mean import average, examples_in
from cloud_server.aggregation.options import require_between
from fleet_model.types import Checkpoint


class FedExP:
    """w <- w + g * d,  g = max(1, sum_k p_k * |d_k|^2 / (2 * (|d|^2 + epsilon))): equation 5.

    d is the mean update of FedAvg, d_k the update of robot k, p_k = n_k / n its part of the
    examples (1 / M in the paper). Where updates point to different sides their mean is short, and
    the step is made longer. The paper measures the mean of the last two models, this gives the
    last one.
    """

    def __init__(self, epsilon: float = 1e-3) -> None:
        """Choose what bounds the step.

        Args:
            epsilon: against the squared length of the mean update, above 0. Larger: more careful.

        Raises:
            SettingsError: it is out of range.
        """
        self._epsilon = require_between("epsilon", epsilon, 0, above=True)

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update and one float64 copy of the weights.

        Raises:
            RoundError: there is nothing to average.
        """
        mean = average(contributions, checkpoint.weights)
        examples = examples_in(contributions)
        squares = sum(one.examples * (one.discount * one.norm) ** 2 for one in contributions)
        of_mean = sum(float(np.sum(np.square(d, dtype=np.float64))) for d in mean.values())
        step = np.float32(max(1.0, squares / examples / (2 * (of_mean + self._epsilon))))
        return next_checkpoint(checkpoint, {name: step * d for name, d in mean.items()})
