"""What of a robot's own runs a bundle there: measured by the agent, kept beside the bundle.

  state/models/versions/000005-<manifest>/.personal.json     a PersonalChoice

The agent writes it (edge_agent/models/personal/chooser.py), and whoever runs the bundle reads it. A
name with a dot in front can be that of no file of a bundle. Without it the shared model runs.
"""

import logging
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from fleet_model.durable import stamp_of, write_durably

FILE = ".personal.json"
MAX_BYTES = 1_000_000
OWN_SHARES: Literal["own_shares"] = "own_shares"
OWN_TENSORS: Literal["own_tensors"] = "own_tensors"
Part: TypeAlias = Literal["own_shares", "own_tensors"]
_WORDS: dict[str, str] = {OWN_SHARES: "own label shares", OWN_TENSORS: "own tensors"}
SHARED = "the shared model"
log = logging.getLogger(__name__)


class PersonalChoice(BaseModel):
    """What was chosen for one bundle, and why."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    precision: str
    asked: tuple[Part, ...] = ()  # what there is of the robot's own
    uses: tuple[Part, ...] = ()  # what of it runs; (): the shared model runs, as it is
    why: str = ""  # nothing of it runs
    measure: str = ""  # the workload's first
    shared: float | None = None  # value of the measure with the shared model
    personal: float | None = None  # with the best of the robot's own
    examples: int = 0  # held-out examples that both were measured on
    counts: dict[str, float] = {}  # label -> what its training examples weigh here
    digest: str = ""  # of the examples that were counted and measured on
    tensors: str = ""  # file of the robot's own tensors, in the bundle's folder

    @property
    def runs(self) -> str:
        """Return what runs, in a few words."""
        own = " and ".join(_WORDS[one] for one in self.uses)
        return f"the model with {own}" if own else SHARED

    @property
    def words(self) -> str:
        """Return one line for people: what runs, what both were worth, why it is not the other."""
        told = [self.runs]
        if self.shared is not None and self.personal is not None:
            own = " and ".join(_WORDS[one] for one in self.uses or self.asked)
            told.append(
                f"{self.measure} {self.personal:.3f} with {own}, {self.shared:.3f} with the "
                f"shared model, on {self.examples} held-out examples"
            )
        return "; ".join([*told, self.why] if self.why else told)


def read_personal(bundle: Path) -> PersonalChoice | None:
    """Return what was chosen for a bundle directory; None without one that can be read."""
    try:
        with (bundle / FILE).open("rb") as stream:
            return PersonalChoice.model_validate_json(stream.read(MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read (%s): the shared model runs", FILE, type(error).__name__)
        return None


def write_personal(bundle: Path, choice: PersonalChoice) -> None:
    """Keep what was chosen, in one step; raises OSError."""
    write_durably(bundle / FILE, choice.model_dump_json() + "\n")


def personal_for(bundle: Path, precision: str) -> PersonalChoice | None:
    """Return what was chosen for a bundle in this precision; None: nothing, so the shared model."""
    choice = read_personal(bundle)
    return choice if choice and choice.precision == precision else None


def stamp(bundle: Path) -> tuple[int, int]:
    """Return what changes whenever another choice is kept; it costs a few microseconds."""
    return stamp_of(bundle / FILE)
