"""What this robot reports about itself with every look at the server."""

import json
import logging
import os
from pathlib import Path

from pydantic import ValidationError

from edge_agent.agent.status import Status
from edge_agent.robot.pause import pause_reason
from edge_agent.robot.power import read_power
from edge_agent.robot.reasons import without_paths
from edge_agent.robot.settings import AgentSettings
from edge_agent.robot.train_when import Gate
from fleet_model import __version__
from fleet_model.errors import UpdateError, one_line
from fleet_model.protocol.report import Fact, RobotReport, pack_report
from fleet_model.protocol.trial import TrialOutcome
from fleet_model.protocol.version import FIRST_PROTOCOL

MAX_NOT_INSTALLED = 200  # characters, as RobotReport.not_installed
FACTS = (
    "expected names of lower-case letters, digits and _, with true, false, a number or a short text"
)
MAX_FACTS_BYTES = 10_000  # of the file; far more than fits into a report
log = logging.getLogger(__name__)


class Reporter:
    """Gathers a report; whatever cannot be found out is left out."""

    def __init__(self, settings: AgentSettings) -> None:
        """Read nothing yet."""
        self._settings = settings
        self._gate = Gate(settings.train_when)
        self._complaint = ""
        self._told = RobotReport()

    def has_news(self, status: Status) -> bool:
        """Whether a report would say something else than the last one; free disk is no news."""
        return _without_disk(self._gather(status)) != self._told

    def packed(self, status: Status, server_protocol: int = FIRST_PROTOCOL) -> str:
        """Return the report of this moment as it travels to a server of that protocol."""
        report = self._gather(status)
        self._told = _without_disk(report)
        if server_protocol == FIRST_PROTOCOL:  # it would refuse the whole report
            newer = {"not_installed": "", "trial": None, "models_site": ""}
            report = report.model_copy(update=newer)
        try:
            text = pack_report(report)
        except UpdateError as error:
            self._complain(f"{self._settings.report.facts.name} is not sent: {error}")
            text = pack_report(report.model_copy(update={"facts": {}}))
        return text

    def _gather(self, status: Status) -> RobotReport:
        power, settings = read_power(), self._settings
        trains = settings.training.enabled and settings.examples.wanted
        return RobotReport(
            model_version=status.active_version,
            busy=pause_reason(settings.state) or (self._gate.closed() if trains else ""),
            battery=power.battery,
            charging=power.charging,
            free_disk_mb=_free_mb(settings.state),
            examples=status.examples,
            trainer=settings.training.trainer[:100] if trains else "",
            software=__version__,
            not_installed=_words(status.not_installed),
            trial=TrialOutcome.model_validate(status.trial) if status.trial else None,
            models_site=status.models_site,
            facts=self._facts(),
        )

    def _facts(self) -> dict[str, Fact]:
        """Return the operator's facts; a file that is wrong is logged once, and has none."""
        path = self._settings.report.facts
        try:
            with path.open("rb") as stream:
                content = json.loads(stream.read(MAX_FACTS_BYTES))
            facts = RobotReport.model_validate({"facts": content}).facts
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"][:2]))
            self._complain(f"{path} is ignored: {where}: {FACTS}")
        except (OSError, ValueError, RecursionError) as error:
            self._complain(f"{path} is ignored: expected a JSON object ({error})")
        else:
            return facts
        return {}

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            log.warning("%s", text)


def _without_disk(report: RobotReport) -> RobotReport:
    return report.model_copy(update={"free_disk_mb": None})


def _words(reason: str) -> str:
    """Return a reason as it may leave the robot: no path, one short line."""
    line = one_line(without_paths(reason))
    return line[:MAX_NOT_INSTALLED]


def _free_mb(folder: Path) -> int | None:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize // 1_000_000
