"""Old updates count less (FedBuff, Nguyen et al. 2022, arXiv:2106.06639)."""

import math


def staleness_weight(staleness: int) -> float:
    """Return s(t) = 1 / sqrt(1 + t), t in versions: the polynomial of the paper with a = 1/2."""
    return 1 / math.sqrt(1 + staleness)
