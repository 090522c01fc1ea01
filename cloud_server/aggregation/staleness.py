"""Old updates count less (FedBuff, Nguyen et al. 2022, arXiv:2106.06639)."""

from dataclasses import replace

import numpy as np

from fleet_model.types import Update


def staleness_weight(staleness: int) -> float:
    """Return s(t) = 1 / sqrt(1 + t), t in versions: the polynomial of the paper with a = 1/2."""
    return float(1 / np.sqrt(1 + staleness))


def scaled(update: Update, staleness: int) -> Update:
    """Return the update times s(staleness), for any rule; a fresh one is returned as it is."""
    if staleness == 0:
        return update
    factor = np.float32(staleness_weight(staleness))
    weights = {name: np.asarray(w * factor) for name, w in update.weights.items()}
    return replace(update, weights=weights)
