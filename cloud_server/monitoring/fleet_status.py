"""What the operator sees of a running server at one moment, put together from all who know."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloud_server.flower.flower_fleet import FlowerFleet
from cloud_server.models.release_log import Release
from cloud_server.monitoring.robot_status import RobotStatus, robot_statuses, waiting_keys
from cloud_server.monitoring.totals import HistoryTotals, RunningTotals
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.offenses import Offenses
from cloud_server.robots.refused_answers import RefusedAnswers
from cloud_server.robots.register import Register
from cloud_server.rollout.progress import RolloutStatus, rollout_statuses
from cloud_server.rounds.progress import OpenRoundStatus
from cloud_server.runs.runs import Run, Runs
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.sums.sums_store import ClosedForm
from fleet_model.protocol.routes import channel_and_site


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """Everything that `status` and the metrics tell."""

    robots: list[RobotStatus]
    waiting: list[RobotStatus]  # unknown keys that asked lately
    runs: list[Run]  # oldest first
    channels: Mapping[str, int]  # channel -> version
    rollouts: Sequence[RolloutStatus] = ()
    assigned: Mapping[str, int] = field(default_factory=dict)  # site's offer -> version
    open_round: OpenRoundStatus | None
    totals: HistoryTotals  # over all closed rounds
    # Robot -> answers since the server started that were refused before a round saw them.
    answered_again: Mapping[str, int] = field(default_factory=dict)
    answered_late: Mapping[str, int] = field(default_factory=dict)
    repeated: Mapping[str, int] = field(default_factory=dict)
    too_large: Mapping[str, int] = field(default_factory=dict)
    misnamed: Mapping[str, int] = field(default_factory=dict)
    # Run that the process before has left unfinished -> rounds that it had closed.
    taken_up: Mapping[str, int] = field(default_factory=dict)

    release: Release | None = None  # what became of a version, last
    closed_form: ClosedForm | None = None  # what was made of sums last
    missing: Sequence[str] = ()  # sentences about parts of the directory that are gone

    @property
    def last_round(self) -> RoundRecord | None:
        """Return the round that closed last."""
        return self.totals.last

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        last = self.last_round
        return {
            "robots": [robot.as_json() for robot in self.robots],
            "waiting": [key.as_json() for key in self.waiting],
            "runs": [run.as_json(robots=False) for run in self.runs],
            "channels": dict(self.channels),
            "assigned": dict(self.assigned),
            "rollouts": [one.as_json() for one in self.rollouts],
            "open_round": None if self.open_round is None else self.open_round.as_json(),
            "last_round": None if last is None else last.as_json(),
            "answered_again": dict(self.answered_again),
            "answered_late": dict(self.answered_late),
            "repeated": dict(self.repeated),
            "too_large": dict(self.too_large),
            "misnamed": dict(self.misnamed),
            "taken_up": dict(self.taken_up),
            "release": None if self.release is None else self.release.model_dump(),
            "closed_form": None if self.closed_form is None else self.closed_form.model_dump(),
            "missing": list(self.missing),
        }


@dataclass(frozen=True, slots=True)
class Overview:
    """Asks everybody; thread-safe."""

    fleet: FlowerFleet
    register: Register
    seen: LastSeen
    offenses: Offenses
    runs: Runs
    store: DirectoryStore
    ledger: RunningTotals
    refused: RefusedAnswers
    missing: Callable[[], Sequence[str]] = list

    def status(self) -> FleetStatus:
        """Return what is so now; raises SettingsError while the register is damaged."""
        online = {robot.name for robot in self.fleet.online()}
        now = self.runs.progress()
        offers = {name: version for name, (version, _) in self.store.offers().items()}
        return FleetStatus(
            robots=robot_statuses(self.register, self.seen, self.offenses, online),
            waiting=waiting_keys(self.register, self.seen),
            runs=self.runs.all(),
            channels={name: one for name, one in offers.items() if "/" not in name},
            assigned={name: one for name, one in offers.items() if channel_and_site(name)[1]},
            rollouts=rollout_statuses(self.store, self.register, self.seen),
            open_round=None if now is None else now.at(time.monotonic(), online),
            totals=self.ledger.totals(),
            answered_again=self.refused.counts("again"),
            answered_late=self.refused.counts("late"),
            repeated=self.refused.counts("repeated"),
            too_large=self.refused.counts("large"),
            misnamed=self.refused.counts("misnamed"),
            taken_up=self.runs.taken_up(),
            release=self.runs.release(),
            closed_form=self.runs.closed_form(),
            missing=self.missing(),
        )
