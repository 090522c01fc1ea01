"""How a student learns, of texts and of pictures; no framework."""

from dataclasses import dataclass

from fleet_model.errors import SettingsError

UNLABELLED = -1  # in the place of the index of a label: nobody has said
_WARM = 0.1  # share of the steps in which the rate grows


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """How a student learns."""

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    temperature: float = 2.0
    hard: float = 0.5  # share of the loss that is the cross entropy, of texts with a label
    features: float = 0.0  # texts: weight of the distance to the teacher's first token's vector
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise SettingsError where a number makes no sense."""
        if not (0 <= self.hard <= 1 and self.temperature > 0 and self.features >= 0):
            raise SettingsError(
                f"distillation: hard is {self.hard:g}, temperature {self.temperature:g}, features "
                f"{self.features:g}; expected 0 to 1, above 0, and 0 or more"
            )
        if min(self.epochs, self.batch_size) < 1:
            raise SettingsError("distillation: epochs and batch_size are 1 at least")


def rate(number: int, total: int) -> float:
    """Return the share of the learning rate in step `number` (from 0) of `total`.

    It grows over the first tenth of the steps, and falls to zero in a line.
    """
    warm = max(1, round(_WARM * total))
    return min((number + 1) / warm, (total - number) / max(1, total - warm + 1))
