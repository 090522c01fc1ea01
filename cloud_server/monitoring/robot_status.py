"""What the operator is told about each robot, put together from everything that knows of it."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.offenses import Offenses
from cloud_server.robots.register import Register

AWAY_S = 90.0  # robots look every two seconds unless they are set to look less often


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotStatus:
    """One robot of the register, or one unknown key that asked."""

    name: str  # "" for an unknown key
    site: str
    state: str  # of the register, or "waiting" for an unknown key
    reason: str  # why it is not approved; for an unknown key the command that admits it
    labels: tuple[str, ...]
    fingerprint: str
    online: bool
    last_seen_s: float | None
    active_version: int | None  # that it predicts with
    offenses: int  # refused updates in a row
    verdict: str  # of its last round
    report: dict[str, Any] | None  # JSON of RobotReport, without what it left out
    refusal: str = ""  # why its last request was refused
    protocol: int | None = None  # that its agent speaks; None: it announces none
    warning: str = ""  # what it is told that a person has to mend on it
    names_server: bool | None = None  # whether its proofs do; None: it has shown none yet

    @property
    def away(self) -> bool:
        """Return whether it is neither connected nor was heard of lately."""
        return not self.online and (self.last_seen_s is None or self.last_seen_s > AWAY_S)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "away": self.away}


def robot_statuses(
    register: Register, seen: LastSeen, offenses: Offenses, online: Collection[str]
) -> list[RobotStatus]:
    """Return one for every robot, by name; raises SettingsError while the register is damaged."""
    statuses, robots = [], register.robots()
    counts = offenses.counts(robots)
    for robot in robots:
        in_a_row, verdict = counts.get(robot.name, (0, ""))
        look, last_seen_s = seen.of(robot.name), seen.last_seen_s(robot.name)
        report = None if look is None else look.report
        statuses.append(
            RobotStatus(
                name=robot.name,
                site=robot.site,
                state=robot.state,
                reason=robot.reason,
                labels=robot.labels,
                fingerprint=robot.fingerprint,
                online=robot.name in online,
                last_seen_s=None if last_seen_s is None else round(last_seen_s, 1),
                active_version=None if look is None else look.active_version,
                offenses=in_a_row,
                verdict=verdict,
                report=None if report is None else report.model_dump(exclude_defaults=True),
                refusal=seen.refusal(robot.name),
                warning=seen.twins.words(robot.name),
                protocol=None if look is None else look.protocol,
                names_server=None if look is None else seen.has_named_server(robot),
            )
        )
    return statuses


def waiting_keys(register: Register, seen: LastSeen) -> list[RobotStatus]:
    """Return the unknown keys that asked lately, the newest first; raises as `robot_statuses`."""
    return [
        RobotStatus(
            name="",
            site="",
            state="waiting",
            reason=one.admit,
            labels=(),
            fingerprint=one.fingerprint,
            online=False,
            last_seen_s=round(seen.age_s(one.at_s), 1),
            active_version=None,
            offenses=0,
            verdict="",
            report=None,
        )
        for one in seen.waiting([robot.key for robot in register.robots()])
    ]
