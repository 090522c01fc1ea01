"""Federated averaging (McMahan et al. 2017, arXiv:1602.05629, Algorithm 1)."""

import numpy as np

from fleet_model.errors import RoundError
from fleet_model.types import Checkpoint, Tensor, Update
from fleet_model.weights import add


class FedAvg:
    """w <- w + sum_k (n_k / n) * (w_k - w), with n_k the examples of robot k.

    Keeps one running sum in float64 however many robots answer: the mean of equal updates is that
    update to the last bit, which a float32 sum does not promise.
    """

    def __init__(self) -> None:
        self._checkpoint = Checkpoint(version=-1, weights={})
        self._sum: dict[str, Tensor] = {}
        self._examples = 0

    def begin(self, checkpoint: Checkpoint) -> None:
        """Start a round."""
        self._checkpoint, self._examples = checkpoint, 0
        self._sum = {name: np.zeros(w.shape) for name, w in checkpoint.weights.items()}

    def add(self, update: Update) -> None:
        """Add n_k * (w_k - w)."""
        for name, total in self._sum.items():
            # With the dtype: NumPy 2 would round a float32 tensor times a Python float to float32.
            total += np.multiply(update.weights[name], update.num_examples, dtype=np.float64)
        self._examples += update.num_examples

    def finish(self) -> Checkpoint:
        """Return the next checkpoint; raises RoundError if nothing was added."""
        if not self._examples:
            raise RoundError("no update to average")
        mean = {name: (s / self._examples).astype(np.float32) for name, s in self._sum.items()}
        return Checkpoint(
            version=self._checkpoint.version + 1,
            weights=add(self._checkpoint.weights, mean),
            server_state=self._checkpoint.server_state,
            seed=self._checkpoint.seed,
        )
