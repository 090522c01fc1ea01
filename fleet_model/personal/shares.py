"""A robot's own label shares at prediction: a personal head for nothing.

A model that was trained with logit adjustment (arXiv:2007.07314) knows no label shares: its logits
are those of a world where every label is as likely. Where the robot's own shares p are known, Bayes
says to add log p to the logits: the same as `bias + log p` in the model's last layer.
"""

from collections.abc import Callable, Mapping

import numpy as np

from fleet_model.errors import BundleError
from fleet_model.optimizer import log_shares
from fleet_model.personal.choice import PersonalChoice
from fleet_model.types import Tensor, Tensors
from fleet_model.workload import Workload


def takes_shares(workload: Workload) -> bool:
    """Return whether label shares can be added to what this workload's models answer."""
    task = workload.task
    return (
        bool(getattr(workload, "class_bias", None))
        and len(task.learned) > 1
        and [spec.shape for spec in task.outputs.values()] == [(len(task.classes),)]
    )


def share_shift(workload: Workload, counts: Mapping[str, float]) -> Mapping[str, Tensor]:
    """Return what is added to the logits, by the name of the output.

    Args:
        workload: whose labels, in whatever order it has them.
        counts: label -> what its training examples weigh; of labels that it lacks nothing is used.

    Raises:
        BundleError: its models answer no logits of classes.
    """
    if not takes_shares(workload):
        raise BundleError("label shares cannot be added: the workload has no class bias")
    (output,) = workload.task.outputs
    own = np.array([counts.get(label, 0.0) for label in workload.task.classes])
    return {output: log_shares(own, 1.0)}


def shifted(outputs: Tensors, shift: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return outputs with what is added to some of them."""
    return {n: out + shift[n] if n in shift else out for n, out in outputs.items()}


def with_shares(
    model: Callable[[Tensors], dict[str, Tensor]], workload: Workload, choice: PersonalChoice
) -> Callable[[Tensors], dict[str, Tensor]]:
    """Return a model that adds this robot's label shares to what `model` answers."""
    shift = share_shift(workload, choice.counts)
    return lambda inputs: shifted(model(inputs), shift)
