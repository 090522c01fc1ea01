"""Adapters whose B is corrected for the mean (LoRA-FAIR, Bian et al. 2025, arXiv:2411.14961)."""

from dataclasses import replace

import numpy as np

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contributions
from cloud_server.aggregation.low_rank import mean_product
from cloud_server.aggregation.mean import average
from cloud_server.aggregation.options import require_between
from fleet_model.adapters.lora import product
from fleet_model.adapters.spec import A, B, adapted_in
from fleet_model.types import Checkpoint


class LoraFair:
    """A <- mean(A_k),  B <- mean(B_k) + D, where D brings A B nearer to M = mean(A_k B_k).

    D minimizes |M - A (B + D)|^2 + l * |D|^2, so D = (A^T A + l I)^-1 A^T (M - A B). No more
    travels than with FedAvg. The paper minimizes a distance by cosine plus l * |D| with gradient
    steps; squares give the same correction for l = 0, in closed form, and need no step size. As
    there, D is kept small on purpose: what is exact but far from the robots' own B learns worse
    (its table of l, which is best at .01).

    l is `regularization` times the mean of the eigenvalues of A^T A, so that it means the same for
    every A. What has no adapter is averaged as in FedAvg.
    """

    needs_adapter = True

    def __init__(self, regularization: float = 0.01) -> None:
        """Choose how small the correction is kept.

        Args:
            regularization: 0 or more; 0: as near to the mean as the rank allows.

        Raises:
            SettingsError: it is out of range.
        """
        self._regularization = require_between("regularization", regularization, 0)

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update, and two float64 copies of one tensor.

        Raises:
            RoundError: there is nothing to average.
        """
        following = next_checkpoint(checkpoint, average(contributions, checkpoint.weights))
        weights = dict(following.weights)
        for path in adapted_in(weights):
            a, b = (weights[path + factor].astype(np.float64) for factor in (A, B))
            missing = mean_product(checkpoint, contributions, path) - product(a, b)
            gram = a.T @ a  # (rank, rank)
            gram += self._regularization * np.trace(gram) / len(gram) * np.eye(len(gram))
            # The pseudoinverse: columns of A may be equal or zero.
            b += np.linalg.pinv(gram, hermitian=True) @ (a.T @ missing)
            weights[path + B] = b.astype(np.float32)
        return replace(following, weights=weights)
