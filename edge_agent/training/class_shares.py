"""Logit adjustment: a robot's model is not to learn how often each class is seen there.

Menon et al. 2021 (arXiv:2007.07314, equation 10) train with the logits f_y(x) + tau * log(p_y),
where p_y is the share of class y, and use f alone to predict. In a fleet p_y is the robot's own
share (FedLC, Zhang et al. 2022, arXiv:2209.00189, calibrates logits by own counts, too): a robot
that never sees a class then has no reason to push its logit down for everybody. Shares are told
relative to equal ones, log(classes * p_y): a softmax cannot tell, and a sigmoid begins as it was.
"""

import math

import numpy as np

from edge_agent.training.rows import Rows
from fleet_model.bundle import TrainerSpec
from fleet_model.errors import TrainingError
from fleet_model.optimizer import log_shares
from fleet_model.types import Tensor, Tensors, TrainConfig, Weights
from fleet_model.workload import Workload


def class_shift(workload: Workload, spec: TrainerSpec, rows: Rows, config: TrainConfig) -> Weights:
    """Return what is added to trained tensors while their gradient is computed; {} if nothing.

    Raises:
        TrainingError: the server asks for it, and the workload has no class bias that is trained.
    """
    if config.logit_adjustment == 0:
        return {}
    bias = getattr(workload, "class_bias", None)
    if bias not in spec.tensors:
        raise TrainingError(
            f"training.logit_adjustment is {config.logit_adjustment:g}, and "
            + (
                f"{bias!r}, by which it works, is not trained here"
                if bias
                else f"the workload {spec.workload.name!r} has no class bias, by which it works"
            )
            + "; set it to 0 in [training] of the server's server.toml"
        )
    counts = sum(one.weight * _counts(workload, one.tensors) for one in rows.targets)
    shift = log_shares(np.asarray(counts), config.logit_adjustment)
    # Of equal shares nothing is left: logits that are each compared with 0, not with one another,
    # are to begin where the model lets them begin.
    return {bias: shift + np.float32(config.logit_adjustment * math.log(len(shift)))}


def _counts(workload: Workload, target: Tensors) -> Tensor:
    """Return how often each class is in one target, (classes,)."""
    if counts := getattr(workload, "class_counts", None):
        counted: Tensor = counts(target)
        return counted
    (number,) = target.values()
    return np.bincount([int(number)], minlength=len(workload.task.classes)).astype(np.float64)
