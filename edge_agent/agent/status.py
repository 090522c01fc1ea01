"""What the agent last did, for `edge-agent status` and for people who watch the robot."""

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.robot.memory import MemoryWatch
from fleet_model.command_line.systemd import notify
from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError, one_line
from fleet_model.litert.runtime import read_choice
from fleet_model.memory import framework_loaded
from fleet_model.personal.choice import read_personal
from fleet_model.protocol.proof import utc_now
from fleet_model.protocol.report import Standing
from fleet_model.protocol.trial import TrialOutcome

FILE = "status.json"
LAST_ERROR = ("last_error", "last_error_at", "last_error_state")
KEEP = 50  # rounds and publishes
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Status:
    """Written to state/status.json at every change."""

    name: str = ""
    site: str = ""
    models_site: str = ""  # by which this robot chooses models; see link/choosing/kept_site.py
    state: str = "starting"  # then "idle", "training", "offline", "refused", "stopped"
    reason: str = ""  # why it is offline or refused, or has stopped by itself
    standing: str = ""  # what the server thinks of it: "approved", "pending", "suspended"
    standing_reason: str = ""
    last_notice: str = ""  # the server's last verdict on an update that it did not accept
    last_notice_id: str = ""
    channel: str = ""  # whose models it follows
    trainer: str = ""
    examples: int | None = None  # to learn from, as far as is known
    active_version: int | None = None
    not_installed: str = ""  # why the newest model is not the active one
    trial: dict[str, Any] | None = None  # TrialOutcome of the model that was tried last
    runtime: dict[str, Any] | None = None  # RuntimeChoice of the active model
    personal: dict[str, Any] | None = None  # PersonalChoice of the active model; never sent
    signatures: dict[str, Any] = field(default_factory=dict)  # Agent._tell_signatures has it
    framework_loaded: bool = False  # in the agent or its training process, ever
    idle_mb: float = 0.0  # summed PSS of the process tree
    peak_mb: float = 0.0
    last_failure: str = ""  # why the server's last request could not be met; "" if it was
    last_error: str = ""  # the newest reason of any kind, kept when it is over and after a stop
    last_error_at: str = ""  # UTC, ISO 8601
    last_error_state: str = ""  # "refused": it is over once the server has admitted this robot
    started_at: float = 0.0  # Unix time
    server: str = ""  # where it answered last; may be another address than in agent.toml
    warning: str = ""  # what the server says that a person has to mend here
    evaluation: dict[str, Any] = field(default_factory=dict)  # what the last one measured
    sums: dict[str, Any] = field(default_factory=dict)  # what was told of features last
    pseudo_labels: dict[str, Any] = field(default_factory=dict)  # of the last round; never sent
    rounds: list[dict[str, Any]] = field(default_factory=list)
    publishes: list[dict[str, Any]] = field(default_factory=list)
    ingest: dict[str, Any] = field(default_factory=dict)  # see examples/spool/ledger.py

    def moved(self) -> str:
        """Return what to tell of a robot that the server has moved to another site; "" if not."""
        return tell_moved(self.site, self.models_site)


def nothing_offered(channel: str, version: int | None) -> str:
    """Return what to tell of a channel that offers nothing while a version is in use, or none."""
    if version is None:
        return f"nothing is published on channel {channel}: see server.channel in agent.toml"
    return f"nothing from channel {channel} yet; version {version} of another one stays in use"


def tell_moved(site: str, models_site: str) -> str:
    """Return what a person has to know where a robot keeps another site than the server says."""
    if site == models_site or not site or not models_site:
        return ""
    return (
        f"this robot chooses models by site {models_site}, which it was told first; the server "
        f"says {site} now: if that is right, `edge-agent site {site}`"
    )


class StatusFile:
    """The agent's side of its status: every change is on disk immediately.

    `count_ingest` may be called from another thread. Memory is measured between `memory.start()`
    and `memory.close()`.
    """

    def __init__(self, folder: Path, trainer: str, channel: str = "") -> None:
        """Start empty, but for what must last: notices and errors that were told, examples."""
        self.status = Status(trainer=trainer, channel=channel, started_at=time.time())
        self.memory = MemoryWatch()
        self._folder, self._writing = folder, threading.Lock()
        try:
            before = read_status(folder)
        except SettingsError:  # damaged: it is replaced
            before = {}
        for name in ("last_notice", "last_notice_id", *LAST_ERROR):
            setattr(self.status, name, str(before.get(name, "")))
        if isinstance(kept := before.get("signatures"), dict):
            self.status.signatures = kept
        if isinstance(examples := before.get("examples"), int):
            self.status.examples = examples

    def set_state(self, state: str, reason: str = "") -> None:
        """Write what the agent does now, and why it is not what it should do."""
        status = self.status
        status.state, status.reason = state, reason
        self._remember(reason, state)
        status.idle_mb, status.peak_mb = self.memory.idle_mb, self.memory.peak_mb
        status.framework_loaded |= framework_loaded()
        notify(one_line(f"STATUS={state}: {reason}" if reason else f"STATUS={state}"))
        self.write()

    def update_standing(self, standing: Standing) -> None:
        """Log and keep what the server thinks of this robot, when that has changed."""
        status = self.status
        if standing.state == "approved" and status.last_error_state == "refused":
            status.last_error = status.last_error_at = status.last_error_state = ""
        new = standing.state, standing.reason
        if new != (status.standing, status.standing_reason):
            if standing.state != "approved":
                log.warning(
                    "this robot takes no part in training: %s (%s)",
                    standing.state,
                    standing.reason or "no reason given",
                )
            elif status.standing:
                log.info("this robot may take part in training again")
            status.standing, status.standing_reason = new
            self.write()
        if standing.warning != status.warning:
            if standing.warning:
                log.warning("the server says: %s", standing.warning)
            status.warning = standing.warning
            self.write()
        if standing.notice_id and standing.notice_id != status.last_notice_id:
            log.warning("the server on this robot's update: %s", standing.notice)
            status.last_notice, status.last_notice_id = standing.notice, standing.notice_id
            self.write()

    def set_not_installed(self, reason: str) -> None:
        """Keep why the newest model is not installed, "" if it is."""
        if reason != self.status.not_installed:
            self.status.not_installed = reason
            self._remember(reason)
            self.write()

    def tell_models(self, last: TrialOutcome | None, active: Path) -> None:
        """Write what became of the model that was tried last, and what runs the active one."""
        choice, own = read_choice(active), read_personal(active)
        self.tell(
            trial=last.model_dump(exclude_defaults=True) if last else None,
            runtime=choice.model_dump() if choice else None,
            personal=own.model_dump(mode="json") if own else None,
        )

    def tell(self, **values: Any) -> None:
        """Write fields of the status, if one of them is another than before."""
        changed = [name for name, value in values.items() if getattr(self.status, name) != value]
        for name in changed:
            setattr(self.status, name, values[name])
        if changed:
            self.write()

    def set_failure(self, reason: str) -> None:
        """Keep why the server's last request could not be met, "" if it was."""
        self.status.last_failure = reason
        self._remember(reason)

    def count_ingest(self, totals: Mapping[str, Any]) -> None:
        """Keep the totals of the robot's store; what the agent does stays as it is."""
        self.status.ingest = dict(totals)
        if isinstance(examples := totals.get("examples"), int):
            self.status.examples = examples
        self.write()

    def _remember(self, reason: str, state: str = "") -> None:
        if reason:
            status, now = self.status, utc_now().isoformat(timespec="seconds")
            status.last_error, status.last_error_at, status.last_error_state = reason, now, state

    def write(self) -> None:
        """Write it as it is."""
        try:
            with self._writing:
                write_status(self._folder, self.status)
        except OSError as error:  # a full disk is no reason to stop
            log.warning("the status cannot be written: %s", error.strerror)


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
