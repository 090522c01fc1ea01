"""Averaging with momentum on the server (Hsu et al. 2019, arXiv:1909.06335, section 4.3)."""

import numpy as np

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contributions
from cloud_server.aggregation.mean import average
from cloud_server.aggregation.options import require_between
from fleet_model.types import Checkpoint

STATE = "fedavgm/"


class FedAvgM:
    """v <- momentum * v + d,  w <- w + learning_rate * v, where d is the mean update of FedAvg.

    What robots agree on for several rounds is learned faster; what they do not agree on evens out.
    """

    takes_means = True

    def __init__(self, momentum: float = 0.9, learning_rate: float = 1.0) -> None:
        """Choose how much of the last steps goes on.

        Args:
            momentum: 0 is FedAvg; below 1.
            learning_rate: of the server, above 0.

        Raises:
            SettingsError: one of them is out of range.
        """
        self._momentum = np.float32(require_between("momentum", momentum, 0, 1))
        self._rate = np.float32(require_between("learning_rate", learning_rate, 0, above=True))

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update, and a float64 and two float32 copies.

        Raises:
            RoundError: there is nothing to average.
        """
        state, change = {}, {}
        for name, mean in average(contributions, checkpoint.weights).items():
            key = STATE + name
            before = checkpoint.server_state.get(key)
            state[key] = mean if before is None else mean + self._momentum * before
            change[name] = self._rate * state[key]
        return next_checkpoint(checkpoint, change, state)
