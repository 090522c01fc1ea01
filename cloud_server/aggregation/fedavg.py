"""Federated averaging (McMahan et al. 2017, arXiv:1602.05629, Algorithm 1)."""

import numpy as np

from cloud_server.aggregation.contributions import Contribution, Contributions
from fleet_model.errors import RoundError
from fleet_model.types import Checkpoint, Tensor, Update
from fleet_model.weights import add

_PIECE = 1 << 18  # numbers that are worked on at once


class FedAvg:
    """w <- w + sum_k (n_k / n) * s_k * (w_k - w).

    n_k are the examples of robot k, s_k the discount for its age (FedBuff, arXiv:2106.06639), n the
    examples of all. An old update shortens the step: its robot's examples count in n undiscounted.

    One sum in float64, however many robots answer: the mean of equal updates is then that update to
    the last bit, which a sum in float32 does not promise.
    """

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update and one float64 copy of the weights.

        Raises:
            RoundError: there is nothing to average.
        """
        sums = {name: np.zeros(w.shape) for name, w in checkpoint.weights.items()}
        examples = 0
        for one in contributions:
            _add(sums, one, contributions.update(one))  # no name here keeps it in memory
            examples += one.examples
        if not examples:
            raise RoundError("no update to average")
        mean = {}
        for name in list(sums):  # in float64 it is two models: it is converted tensor by tensor
            total = sums.pop(name)
            total /= examples
            mean[name] = total.astype(np.float32)
            del total
        return Checkpoint(
            version=checkpoint.version + 1,
            weights=add(checkpoint.weights, mean),
            server_state=checkpoint.server_state,
            seed=checkpoint.seed,
        )


def _add(sums: dict[str, Tensor], one: Contribution, update: Update) -> None:
    """Add n_k * s_k * (w_k - w)."""
    discount = np.float32(one.discount)
    for name, total in sums.items():
        into, weights = total.reshape(-1), update.weights[name].reshape(-1)
        for start in range(0, into.size, _PIECE):  # no second float64 tensor
            piece = slice(start, start + _PIECE)
            # First discounted in float32 (1 changes nothing), then summed in float64: the bits of
            # every release so far. NumPy 2 would round float32 times int to float32.
            part = weights[piece] * discount
            into[piece] += np.multiply(part, one.examples, dtype=np.float64)
