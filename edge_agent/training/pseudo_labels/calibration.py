"""From which score on a robot may trust its model: measured on its own held-out examples."""

import numpy as np

from fleet_model.types import Tensor
from fleet_model.workload import Certainty

# Answers of a class that are at least so sure. All of ten right: with a chance of one in twenty the
# precision is below 0.74 all the same (Clopper and Pearson 1934), so held-out examples matter.
LEAST = 10


def least_scores(known: Certainty, classes: int, precision: float) -> Tensor:
    """Return (classes,) the lowest score from which on a class has the precision; inf without one.

    Args:
        known: answers to held-out examples.
        classes: how many there are.
        precision: share of the answers of this score and above that must be right, 0 to 1.
    """
    least = np.full(classes, np.inf)
    for index in range(classes):
        mine = known.classes == index
        scores, right = known.scores[mine], known.right[mine]
        order = np.argsort(-scores, kind="stable")
        scores, hits = scores[order], np.cumsum(right[order])
        counts = np.arange(1, len(scores) + 1)
        enough = (counts >= LEAST) & (hits >= precision * counts - 1e-9)
        enough[:-1] &= scores[:-1] > scores[1:]  # equal scores are trusted together or not at all
        if enough.any():
            least[index] = scores[np.flatnonzero(enough)[-1]]
    return least
