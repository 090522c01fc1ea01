"""A plug-in trainer that hardly trains: a round with it costs what the federation itself costs."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fleet_model.bundle import TrainerSpec
from fleet_model.types import Checkpoint, Example, TrainConfig, Update


class ConstantTrainer:
    """Add 1 to every tensor; the examples are not read. CONSTANT_TRAINER_S: how long it takes."""

    def __init__(self, spec: TrainerSpec, directory: Path) -> None:
        """Nothing to load."""

    def fit(
        self, checkpoint: Checkpoint, examples: Iterable[Example], config: TrainConfig
    ) -> Update:
        """Return ones."""
        time.sleep(float(os.environ.get("CONSTANT_TRAINER_S", "0")))
        return Update(
            robot="",
            base_version=checkpoint.version,
            weights={name: np.ones_like(value) for name, value in checkpoint.weights.items()},
            num_examples=1,
            num_steps=1,
        )
