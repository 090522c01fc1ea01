"""What a site relay sends: the weighted mean of its robots' updates, as exact as their sum.

A mean in float32 alone is rounded, and so would be the fleet's. What the sum over all examples has
beside `examples * mean` travels in a group of its own: sum = examples * weights + low.
"""

import numpy as np

from fleet_model.errors import UpdateError
from fleet_model.protocol.example_counts import SPEAKS_FOR
from fleet_model.types import Tensor, Update, Weights
from fleet_model.weights import require_same_tensors

LOW = "low"  # the group


def split(sums: Weights, examples: int) -> tuple[Weights, Weights]:
    """Return float64 sums over examples as (mean, low), float32 both."""
    mean = {name: (total / examples).astype(np.float32) for name, total in sums.items()}
    low = {
        # examples * mean is exact in float64: 24 and at most 29 bits.
        name: (sums[name] - np.multiply(mean[name], examples, dtype=np.float64)).astype(np.float32)
        for name in sums
    }
    return mean, low


def low_of(update: Update, name: str) -> Tensor | None:
    """Return what is to be added to examples times a tensor, in float64; None of a robot's.

    None, too, of a tensor that is not sent (a residual of adapters).
    """
    return update.groups.get(LOW, {}).get(name)


def require_low(update: Update) -> None:
    """Raise UpdateError unless `low` has tensors of the update that are less than its last bits.

    Larger numbers would be a second update, which no bound has looked at.
    """
    low, weights = update.groups[LOW], update.weights
    require_same_tensors(weights, low, sender="the relay's update")
    for name, tensor in low.items():
        if not (np.abs(tensor) <= update.num_examples * np.spacing(np.abs(weights[name]))).all():
            raise UpdateError(
                f"the group {LOW!r} of the relay's update has numbers in {name} that change more "
                "than the last bit"
            )


def speaks_for(update: Update, most: int) -> int:
    """Return how many robots a reply is the mean of, as far as the register allows it."""
    told = update.metrics.get(SPEAKS_FOR, 1.0)
    return max(1, min(int(told) if told < most else most, most))
