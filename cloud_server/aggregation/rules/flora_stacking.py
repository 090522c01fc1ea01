"""Adapters that are stacked, and begun anew (FLoRA, Wang et al. 2024, arXiv:2409.05976, eq. 8)."""

import logging
from dataclasses import replace

import numpy as np

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contribution, Contributions
from cloud_server.aggregation.low_rank import mean_product
from cloud_server.aggregation.mean import average
from fleet_model.adapters.lora import first_factor
from fleet_model.adapters.spec import RESIDUAL, A, B, adapted_in
from fleet_model.errors import RoundError
from fleet_model.types import Checkpoint

log = logging.getLogger(__name__)


class FloraStacking:
    """R <- R + sum_k p_k A_k B_k, then A is drawn anew, as large as it was, and B is zero.

    Side by side, (A_1, A_2, ...) and (p_1 B_1, p_2 B_2, ...) one below the other have exactly this
    product, whatever rank each of them has: a robot that trains only the first columns of A leaves
    the other rows of B at zero, and they add nothing. The paper sends the stacks, which grow with
    robots; here their product goes into the residual R that robots get with the checkpoint, of
    fan_in * fan_out numbers for each adapted tensor. W is then the mean of the robots' own W.

    As A begins anew, an update of an earlier version says nothing about this one and is left out.
    What has no adapter is averaged as in FedAvg.
    """

    needs_adapter = True
    keeps_residual = True
    fresh_only = True

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update, and two float64 copies of one tensor.

        Raises:
            RoundError: there is no update of this version.
        """
        paths = adapted_in(checkpoint.weights)
        old = [one.robot for one in contributions if paths and one.staleness]
        if old and len(old) == len(contributions):
            raise RoundError("no update of this version: flora_stacking cannot use an older one")
        if old:
            log.warning("left out, as they began from other adapters: %s", ", ".join(old))
        following = next_checkpoint(checkpoint, average(contributions, checkpoint.weights))
        weights = dict(following.weights)
        for path in paths:
            total = mean_product(checkpoint, contributions, path, _is_fresh)
            total += checkpoint.weights.get(path + RESIDUAL, np.float32(0))
            weights[path + RESIDUAL] = total.astype(np.float32)
            before = checkpoint.weights[path + A].astype(np.float64)
            size = float(np.sqrt(np.square(before).mean()))
            for name in (path + A, path + B):
                shape = weights[name].shape
                weights[name] = first_factor(name, shape, size, following.version)
        return replace(following, weights=weights)


def _is_fresh(one: Contribution) -> bool:
    return not one.staleness
