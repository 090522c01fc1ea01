"""Federated averaging (McMahan et al. 2017, arXiv:1602.05629, Algorithm 1)."""

import numpy as np

from fleet_model.errors import RoundError
from fleet_model.types import Checkpoint, Tensor, Update
from fleet_model.weights import add

_PIECE = 1 << 18  # numbers that are worked on at once
_NONE = Checkpoint(version=-1, weights={})


class FedAvg:
    """w <- w + sum_k (n_k / n) * (w_k - w), with n_k the examples of robot k.

    Keeps one running sum in float64 however many robots answer: the mean of equal updates is that
    update to the last bit, which a float32 sum does not promise.
    """

    def __init__(self) -> None:
        self._checkpoint = _NONE
        self._sum: dict[str, Tensor] = {}
        self._examples = 0

    def begin(self, checkpoint: Checkpoint) -> None:
        """Start a round."""
        self._checkpoint, self._examples = checkpoint, 0
        self._sum = {name: np.zeros(w.shape) for name, w in checkpoint.weights.items()}

    def add(self, update: Update) -> None:
        """Add n_k * (w_k - w)."""
        for name, total in self._sum.items():
            into, weights = total.reshape(-1), update.weights[name].reshape(-1)
            for start in range(0, into.size, _PIECE):  # no second float64 tensor
                piece = slice(start, start + _PIECE)
                # With the dtype: NumPy 2 would round a float32 tensor times a float to float32.
                into[piece] += np.multiply(weights[piece], update.num_examples, dtype=np.float64)
        self._examples += update.num_examples

    def finish(self) -> Checkpoint:
        """Return the next checkpoint; raises RoundError if nothing was added."""
        if not self._examples:
            raise RoundError("no update to average")
        mean = {}
        for name in list(self._sum):  # in float64 it is two models: it goes tensor by tensor
            total = self._sum.pop(name)
            total /= self._examples
            mean[name] = total.astype(np.float32)
            del total
        # Until the next round the rule holds nothing: models are large, and rounds are long.
        before, self._checkpoint = self._checkpoint, _NONE
        return Checkpoint(
            version=before.version + 1,
            weights=add(before.weights, mean),
            server_state=before.server_state,
            seed=before.seed,
        )
