"""Under which settings and versions the rounds of a run were closed.

The file conditions.json beside run.json: so that runs can be compared when server.toml has changed.
"""

import json
import logging
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cloud_server.state.settings import ServerSettings
from fleet_model.durable import write_durably

FILE = "conditions.json"
SECTIONS = ("training", "start", "rounds", "aggregation", "privacy", "checks")
PACKAGES = ("fleetlearn", "flwr", "numpy")
log = logging.getLogger(__name__)


class Conditions(BaseModel):
    """What held from a round on."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    from_round: int
    settings: Mapping[str, Mapping[str, Any]]  # the SECTIONS of server.toml
    versions: Mapping[str, str]
    trainer: str  # sha256 of trainer.json

    def flat(self) -> dict[str, str]:
        """Return every value by its name: training.epochs -> 5, version of flwr -> 1.42."""
        named = {
            f"{section}.{name}": json.dumps(value, ensure_ascii=False)
            for section, values in self.settings.items()
            for name, value in values.items()
        }
        named |= {f"version of {name}": one for name, one in self.versions.items()}
        return {**named, "trainer": self.trainer[:12]}


_ALL = TypeAdapter(tuple[Conditions, ...])


def note(folder: Path, from_round: int, settings: ServerSettings, trainer: str) -> None:
    """Write down what holds from a round on, unless that is what held before.

    Args:
        folder: of the run.
        from_round: the next one of the run.
        settings: of the server.
        trainer: sha256 of trainer.json.
    """
    values = settings.model_dump(mode="json")
    now = Conditions(
        from_round=from_round,
        settings={name: values[name] for name in SECTIONS},
        versions={"python": platform.python_version(), **_versions()},
        trainer=trainer,
    )
    before = read(folder)
    if before and before[-1].model_copy(update={"from_round": from_round}) == now:
        return
    kept = [one for one in before if one.from_round < from_round]
    write_durably(folder / FILE, _ALL.dump_json((*kept, now), indent=1))


def read(folder: Path) -> tuple[Conditions, ...]:
    """Return what held, first rounds first; nothing for a run of an earlier release."""
    try:
        return _ALL.validate_json((folder / FILE).read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        log.warning("%s is left out: %s", folder / FILE, error)
        return ()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
