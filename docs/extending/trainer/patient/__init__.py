"""A trainer that waits for enough examples, and takes small steps while it has few.

In agent.toml:

    [training]
    trainer = "patient:PatientTrainer"
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from edge_agent.training.trainers.litert import LiteRTTrainer
from fleet_model.bundle import TrainerSpec
from fleet_model.errors import TrainingError
from fleet_model.types import Checkpoint, Example, TrainConfig, Update

LEAST, MANY = 10, 100  # training examples


class PatientTrainer:
    """Train with LiteRT; the learning rate grows with the number of training examples."""

    def __init__(self, spec: TrainerSpec, directory: Path) -> None:
        """Load the trainer; a plug-in is given every file of it."""
        self._trainer = LiteRTTrainer(spec, directory)

    def fit(
        self, checkpoint: Checkpoint, examples: Iterable[Example], config: TrainConfig
    ) -> Update:
        """Return the update of one round.

        Raises:
            TrainingError: there are too few examples; the server is told this reason.
        """
        kept = list(examples)  # an example reads its picture only when it is needed
        count = sum(not example.held_out for example in kept)
        if count < LEAST:
            raise TrainingError(f"{count} training examples, expected at least {LEAST}")
        share = min(1.0, count / MANY)
        return self._trainer.fit(
            checkpoint, kept, replace(config, learning_rate=config.learning_rate * share)
        )
