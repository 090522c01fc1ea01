"""What rules of adapters share: the mean of the robots' own products A_k B_k.

W = W0 + s * (A B + R), see fleet_model/adapters/lora.py. Nothing here needs to know s or W0.
"""

from collections.abc import Callable

import numpy as np

from cloud_server.aggregation.contributions import Contribution, Contributions
from cloud_server.aggregation.mean import examples_in
from fleet_model.adapters.lora import product
from fleet_model.adapters.spec import A, B
from fleet_model.types import Checkpoint, Tensor


def mean_product(
    checkpoint: Checkpoint,
    contributions: Contributions,
    path: str,
    counts: Callable[[Contribution], bool] = lambda _: True,
) -> Tensor:
    """Return sum_k p_k A_k B_k: (fan_in, fan_out) float64; p_k is robot k's part of the examples.

    A_k = A + s_k dA_k, where s_k is the discount for the age of an update, as in `average`. Holds
    the factors of one update and two products.

    Args:
        checkpoint: what the round started from.
        contributions: the updates.
        path: of the adapted tensor.
        counts: leaves out updates.

    Raises:
        RoundError: there is no update.
    """
    examples = examples_in(one for one in contributions if counts(one))
    a, b = (checkpoint.weights[path + factor].astype(np.float64) for factor in (A, B))
    total = np.zeros((len(a), b.shape[1]))
    for one in contributions:
        if counts(one):
            own_a = a + one.discount * contributions.tensor(one, path + A)
            own_b = b + one.discount * contributions.tensor(one, path + B)
            total += product(own_a, own_b) * (one.examples / examples)
    return total
