"""Adaptive steps on the server (Reddi et al. 2021, arXiv:2003.00295, Algorithm 2)."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contributions
from cloud_server.aggregation.mean import average
from cloud_server.aggregation.options import require_between
from fleet_model.types import Checkpoint, Tensor

# Numbers are float32: of a tensor without axes and a Python number NumPy 1 makes float64.
_ONE = np.float32(1)


class _FedOpt(ABC):
    """m <- b1 * m + (1 - b1) * d;  v <- as the rule says;  w <- w + rate * m / (sqrt(v) + tau).

    d is the mean update of FedAvg. Each number has a step of its own, about the learning rate long,
    so this rate is in units of the weights: smaller than that of robots. m and v begin with 0.
    """

    takes_means = True

    prefix: ClassVar[str]  # of its tensors in Checkpoint.server_state

    def __init__(
        self,
        learning_rate: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        tau: float = 1e-3,
    ) -> None:
        """Choose the steps.

        Args:
            learning_rate: of the server, above 0.
            beta_1: how much of the mean direction stays in a round, below 1.
            beta_2: how much of the mean square stays in a round, below 1; FedAdagrad has none.
            tau: numbers whose updates are smaller than that move less, above 0.

        Raises:
            SettingsError: one of them is out of range.
        """
        self._rate = require_between("learning_rate", learning_rate, 0, above=True)
        self._beta_1 = np.float32(require_between("beta_1", beta_1, 0, 1))
        self._beta_2 = np.float32(require_between("beta_2", beta_2, 0, 1))
        self._tau = np.float32(require_between("tau", tau, 0, above=True))

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update, and a float64 and four float32 copies.

        Raises:
            RoundError: there is nothing to average.
        """
        before = checkpoint.server_state
        state: dict[str, Tensor] = {}
        change: dict[str, Tensor] = {}
        step = int(before.get(f"{self.prefix}/step", np.zeros(1))[0]) + 1
        rate = np.float32(self._rate * self._correction(step))
        for name, mean in average(contributions, checkpoint.weights).items():
            first, second = f"{self.prefix}/m/{name}", f"{self.prefix}/v/{name}"
            m, v = (before.get(one, np.zeros_like(mean)) for one in (first, second))
            m = self._beta_1 * m + (_ONE - self._beta_1) * mean
            v = self._squares(v, mean * mean)
            change[name] = rate * m / (np.sqrt(v) + self._tau)
            state |= {first: m, second: v}
        state[f"{self.prefix}/step"] = np.array([step], np.int64)
        return next_checkpoint(checkpoint, change, state)

    @abstractmethod
    def _squares(self, v: Tensor, square: Tensor) -> Tensor:
        """Return the next v; `square` is d^2."""

    def _correction(self, step: int) -> float:
        """Return the factor of the rate in a round, from 1."""
        return 1.0


class FedAdagrad(_FedOpt):
    """v <- v + d^2: steps become shorter with every round."""

    prefix = "fedadagrad"

    def _squares(self, v: Tensor, square: Tensor) -> Tensor:
        return v + square


class FedYogi(_FedOpt):
    """v <- v - (1 - b2) * d^2 * sign(v - d^2): v follows slowly where updates become smaller."""

    prefix = "fedyogi"

    def _squares(self, v: Tensor, square: Tensor) -> Tensor:
        towards: Tensor = np.sign(v - square)
        return v - (_ONE - self._beta_2) * square * towards


class FedAdam(_FedOpt):
    """v <- b2 * v + (1 - b2) * d^2.

    As m and v begin with 0, the rate is corrected as in Adam (Kingma and Ba 2015, arXiv:1412.6980,
    section 2): sqrt(1 - b2^t) / (1 - b1^t) in round t = 1, 2, ... of this rule.
    """

    prefix = "fedadam"

    def _squares(self, v: Tensor, square: Tensor) -> Tensor:
        return self._beta_2 * v + (_ONE - self._beta_2) * square

    def _correction(self, step: int) -> float:
        b1, b2 = float(self._beta_1), float(self._beta_2)
        return float(np.sqrt(1 - b2**step) / (1 - b1**step))
