"""Differential privacy that needs no trust in the server: the robot clips and adds noise itself."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fleet_model.errors import TrainingError
from fleet_model.protocol.private import fresh_generator, privately
from fleet_model.types import TrainConfig, Update

NOISE = "private_noise"  # metric: deviation of each number's noise


def require_protectable(config: TrainConfig) -> None:
    """Raise TrainingError for a request whose answer would hold tensors without noise."""
    if config.private_clip > 0 and config.private_noise <= 0:
        raise TrainingError("the server asks for updates with noise, and for none of it")
    if config.private_clip > 0 and config.control_variates:
        raise TrainingError(
            "the server asks for updates with noise, and for control variates, which would have "
            "none: nothing is sent"
        )


def protected(
    update: Update,
    config: TrainConfig,
    random: Callable[[], np.random.Generator] = fresh_generator,
) -> Update:
    """Return an update as the server may see it; its measures and counts stay as they are.

    Raises:
        TrainingError: it has further tensors, which nobody would protect.
    """
    if update.groups:
        group = next(iter(update.groups))
        raise TrainingError(
            f"the update has the group {group!r}, which gets no noise: nothing is sent"
        )
    clip, noise = config.private_clip, config.private_noise
    weights = privately(update.weights, clip, noise, random())
    return replace(update, weights=weights, metrics={**update.metrics, NOISE: clip * noise})
