"""What the agent last did, for `edge-agent status` and whoever watches the robot."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError

FILE = "status.json"
KEEP = 50  # rounds and publishes


@dataclass(slots=True)
class Status:
    """Written to state/status.json at every change."""

    name: str = ""
    site: str = ""
    state: str = "starting"  # then "idle", "training", "offline", "stopped"
    reason: str = ""  # why it is offline, or has stopped by itself
    trainer: str = ""
    active_version: int | None = None
    tensorflow_loaded: bool = False  # in the agent or its training process, ever
    idle_mb: float = 0.0  # summed PSS of the process tree
    peak_mb: float = 0.0
    rounds: list[dict[str, Any]] = field(default_factory=list)
    publishes: list[dict[str, Any]] = field(default_factory=list)
    ingest: dict[str, Any] = field(default_factory=dict)  # from the spool, see ingest_ledger.Totals


def write_status(state: Path, status: Status) -> None:
    """Replace the file in one step; it stays short over years. Raises OSError."""
    del status.rounds[:-KEEP], status.publishes[:-KEEP]
    write_durably(state / FILE, json.dumps(asdict(status), indent=1))


def read_status(state: Path) -> dict[str, Any]:
    """Return what the agent last wrote; empty if it has never run; raises SettingsError."""
    try:
        return dict(json.loads((state / FILE).read_text()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"{state / FILE}: cannot be read ({error})") from None
