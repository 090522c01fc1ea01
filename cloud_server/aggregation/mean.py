"""Weighted means of updates, one update in memory at a time."""

from collections.abc import Callable, Iterable

import numpy as np

from cloud_server.aggregation.contributions import Contribution, Contributions
from fleet_model.errors import RoundError
from fleet_model.protocol.relayed import low_of
from fleet_model.types import Tensor, Update, Weights

_PIECE = 1 << 18  # numbers that are worked on at once
Factor = Callable[[Contribution], float]


def examples_of(one: Contribution) -> float:
    """Return the examples that count: the factor of a plain mean."""
    return one.examples


def examples_in(contributions: Iterable[Contribution]) -> int:
    """Return the examples that count, of all; raises RoundError if there is no update."""
    examples = sum(one.examples for one in contributions)
    if not examples:
        raise RoundError("no update to average")
    return examples


def average(
    contributions: Contributions, like: Weights, factor: Factor = examples_of, total: float = 0.0
) -> Weights:
    """Return sum_k factor_k * s_k * (w_k - w) / total, float32.

    s_k is the discount for the age of an update (FedBuff, arXiv:2106.06639). It is not in the
    total: old updates shorten the step. The sum is in float64, however many robots answer: the mean
    of equal updates is then that update to the last bit, which float32 does not promise. Holds one
    update and one float64 copy of the weights.

    Args:
        contributions: the updates.
        like: tensors of the names and shapes that updates have.
        factor: of an update.
        total: 0: the sum of all factors.

    Raises:
        RoundError: there is nothing to average.
    """
    mean = {}
    sums, factors = exact_sums(contributions, like, factor)
    for name in list(sums):  # in float64 it is two models: it is converted tensor by tensor
        summed = sums.pop(name)
        summed /= total or factors
        mean[name] = summed.astype(np.float32)
        del summed
    return mean


def exact_sums(
    contributions: Contributions, like: Weights, factor: Factor = examples_of
) -> tuple[dict[str, Tensor], float]:
    """Return sum_k factor_k * s_k * (w_k - w), float64, and the sum of all factors.

    Raises:
        RoundError: there is nothing to average.
    """
    sums, factors = {name: np.zeros(w.shape) for name, w in like.items()}, 0.0
    for one in contributions:
        _add(sums, one, factor(one), contributions.update(one))  # no name here keeps it in memory
        factors += factor(one)
    if not factors:
        raise RoundError("no update to average")
    return sums, factors


def _add(sums: dict[str, Tensor], one: Contribution, factor: float, update: Update) -> None:
    discount = np.float32(one.discount)
    for name, total in sums.items():
        into, weights = total.reshape(-1), update.weights[name].reshape(-1)
        low = low_of(update, name)
        for start in range(0, into.size, _PIECE):  # no second float64 tensor
            piece = slice(start, start + _PIECE)
            # First discounted in float32 (1 changes nothing), then summed in float64: the bits of
            # every release so far. NumPy 2 would round float32 times int to float32.
            part = weights[piece] * discount
            into[piece] += np.multiply(part, factor, dtype=np.float64)
            if low is not None:  # of a site relay: what its sum has beside examples * mean
                rest = float(discount) * (factor / one.examples)
                into[piece] += np.multiply(low.reshape(-1)[piece], rest, dtype=np.float64)
