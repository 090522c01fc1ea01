"""Exact averaging of adapters (FedEx-LoRA, Singhal et al. 2025, arXiv:2410.09432, section 4)."""

from dataclasses import replace

import numpy as np

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contributions
from cloud_server.aggregation.low_rank import mean_product
from cloud_server.aggregation.mean import average
from fleet_model.adapters.lora import product
from fleet_model.adapters.spec import RESIDUAL, A, B, adapted_in
from fleet_model.types import Checkpoint


class FedExLora:
    """A <- mean(A_k),  B <- mean(B_k),  R <- R + mean(A_k B_k) - A B.

    The product of means is not the mean of products. What is missing goes into the residual R,
    which robots get with the checkpoint and do not train: W0 + s * (A B + R) is then the mean of
    the robots' own W, to the rounding of float32. Robots send as much as with FedAvg. Down go, for
    each tensor that has an adapter, fan_in * fan_out numbers more: as many as it has itself.

    What has no adapter is averaged as in FedAvg. Updates count by examples and age, as there.
    """

    needs_adapter = True
    keeps_residual = True

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update, and two float64 copies of one tensor.

        Raises:
            RoundError: there is nothing to average.
        """
        following = next_checkpoint(checkpoint, average(contributions, checkpoint.weights))
        weights = dict(following.weights)
        for path in adapted_in(weights):
            missing = mean_product(checkpoint, contributions, path)
            missing -= product(weights[path + A], weights[path + B])
            missing += checkpoint.weights.get(path + RESIDUAL, np.float32(0))
            weights[path + RESIDUAL] = missing.astype(np.float32)
        return replace(following, weights=weights)
