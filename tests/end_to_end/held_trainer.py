"""A plug-in trainer that is as slow as a test needs: it ends when the test lets it."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.constant_trainer import ConstantTrainer
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
