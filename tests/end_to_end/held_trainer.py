"""Plug-in trainers: one is as slow as a test needs, one is wrong and claims too much."""

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.constant_trainer import ConstantTrainer
from edge_agent.training.trainers.litert import LiteRTTrainer
from fleet_model.types import Checkpoint, Example, TrainConfig, Update


class HeldTrainer(ConstantTrainer):
    """Add 1 to every tensor once the file HELD_TRAINER_UNTIL exists."""

    def fit(
        self, checkpoint: Checkpoint, examples: Iterable[Example], config: TrainConfig
    ) -> Update:
        """Return ones."""
        until = Path(os.environ["HELD_TRAINER_UNTIL"])
        while not until.exists():
            time.sleep(0.05)
        return super().fit(checkpoint, examples, config)


class WrongTrainer(LiteRTTrainer):
    """Take every label for another one."""

    def fit(
        self, checkpoint: Checkpoint, examples: Iterable[Example], config: TrainConfig
    ) -> Update:
        """Return an update towards the wrong labels."""
        turned = {name: np.roll(rows, -1, -1) for name, rows in checkpoint.weights.items()}
        update = super().fit(replace(checkpoint, weights=turned), examples, config)
        weights = {name: np.roll(rows, 1, -1) for name, rows in update.weights.items()}
        return replace(update, weights=weights)


class BoastingTrainer(WrongTrainer):
    """The same, and claim the largest number of examples that counts."""

    CLAIM = 10_000

    def fit(
        self, checkpoint: Checkpoint, examples: Iterable[Example], config: TrainConfig
    ) -> Update:
        """Return an update towards the wrong labels, full of praise for itself."""
        update = super().fit(checkpoint, examples, config)
        praise = {"accuracy_after": 1.0, "held_out": float(self.CLAIM)}
        return replace(update, num_examples=self.CLAIM, metrics=update.metrics | praise)
