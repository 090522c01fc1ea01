"""What pages say of robots: rows of a table, one robot, sites. Every word of a robot stays text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloud_server.console.desk import Desk
from cloud_server.monitoring.fleet_status import FleetStatus
from cloud_server.monitoring.robot_status import RobotStatus
from cloud_server.monitoring.run_words import shown_model
from cloud_server.monitoring.status_words import about_robot
from cloud_server.state.clock import age
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.measures import changes
from fleet_model.protocol.example_counts import tell_left_out
from fleet_model.protocol.routes import channel_and_site
from fleet_model.protocol.trial import BACK, REFUSED

SHOWN_ROUNDS = 20
GOOD, BAD, WAITS, AWAY = "good", "bad", "waits", "away"  # tones: classes of the style
FILTERS = {
    "": "all",
    "attention": "need attention",
    "online": "online",
    "offline": "offline",
    "pending": "wait for approval",
    "suspended": "suspended",
    "revoked": "revoked",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotRow:
    """One robot in a table."""

    name: str
    site: str
    state: str
    health: str
    tone: str
    seen: str
    version: str
    clock: str
    disk: str
    skipped: str
    labels: str


@dataclass(frozen=True, slots=True)
class Judged:
    """One robot with what a filter asks for; cells are made for those on the page alone."""

    robot: RobotStatus
    last: RobotRecord | None  # its part in the round that closed last
    health: str
    tone: str

    @property
    def needs_attention(self) -> bool:
        """Return whether a person has to do something."""
        return self.tone == BAD or self.robot.state == "pending"

    @property
    def row(self) -> RobotRow:
        """Return its cells."""
        return robot_row(self.robot, self.last)


def judged(status: FleetStatus) -> list[Judged]:
    """Return every robot, by name."""
    last, found = last_outcomes(status.last_round), []
    for robot in status.robots:
        mine = last.get(robot.name)
        found.append(Judged(robot, mine, *health_of(robot, mine)))
    return found


def last_outcomes(record: RoundRecord | None) -> Mapping[str, RobotRecord]:
    """Return robot -> its part in the round that closed last."""
    return {} if record is None else {one.name: one for one in record.robots}


def robot_row(robot: RobotStatus, last: RobotRecord | None) -> RobotRow:
    """Return the cells of one robot."""
    report = robot.report or {}
    health, tone = health_of(robot, last)
    free = report.get("free_disk_mb")
    return RobotRow(
        name=robot.name,
        site=robot.site,
        state=robot.state,
        health=health,
        tone=tone,
        seen="never" if robot.last_seen_s is None else f"{age(robot.last_seen_s)} ago",
        version=shown_model(robot.active_version, report.get("trial")),
        clock=clock_of(robot),
        disk="-" if free is None else disk(free),
        skipped=skipped(last) or report.get("not_installed", ""),
        labels=", ".join(robot.labels),
    )


def health_of(robot: RobotStatus, last: RobotRecord | None) -> tuple[str, str]:
    """Return how a robot is in few words, and the tone; what a person has to mend comes first."""
    report = robot.report or {}
    trial = (report.get("trial") or {}).get("state")
    if robot.state == "revoked":
        return "revoked", AWAY
    if robot.state == "suspended":
        return "suspended", BAD
    if robot.refusal:
        return "refused", BAD
    if robot.state == "pending":
        return "waits for approval", WAITS
    if robot.away:
        return "offline", AWAY
    told: Sequence[tuple[object, str, str]] = (
        (robot.warning, "warned", BAD),
        (robot.offenses > 1, "updates refused", BAD),
        (last is not None and last.outcome.kind == "failed", "failed last time", BAD),
        (trial in (REFUSED, BACK) or report.get("not_installed"), "keeps an older model", WAITS),
        (report.get("busy"), "busy", WAITS),
    )
    return next(((words, tone) for so, words, tone in told if so), ("well", GOOD))


def clock_of(robot: RobotStatus) -> str:
    """Return what is known of its clock: a proof with a wrong time is refused."""
    if "clock is" in robot.refusal:
        return "wrong"
    return "-" if robot.last_seen_s is None or robot.refusal else "right"


def disk(megabytes: float) -> str:
    """Return free space as people say it."""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def skipped(last: RobotRecord | None) -> str:
    """Return why a robot had no part in the last round, else which examples it left out."""
    if last is None:
        return ""
    return tell_left_out(last.counts.left_out) if last.accepted else last.outcome.text


def chosen(robots: Sequence[Judged], text: str, site: str, state: str) -> list[Judged]:
    """Return the robots that a filter lets through; `text` is part of a name, site or label."""
    wanted = text.strip().casefold()
    return [
        one
        for one in robots
        if (not site or one.robot.site == site)
        and _is(one, state)
        and (not wanted or wanted in _searched(one.robot))
    ]


def _searched(robot: RobotStatus) -> str:
    return "\n".join((robot.name, robot.site, *robot.labels)).casefold()


def _is(one: Judged, state: str) -> bool:
    if state == "attention":
        return one.needs_attention
    if state in ("online", "offline"):
        return one.robot.away == (state == "offline")
    return state not in FILTERS or not state or one.robot.state == state


def numbers(status: FleetStatus, robots: Sequence[Judged]) -> list[tuple[str, str, str]]:
    """Return name, value, more words of what stands above the table."""
    online = sum(not one.robot.away for one in robots)
    needs = sum(one.needs_attention for one in robots)
    newest = max(status.channels.values(), default=None)
    runs = sum(robot.active_version == newest for robot in status.robots) if newest else 0
    active = status.runs[-1] if status.runs and status.runs[-1].active else None
    going = f"{active.rounds_closed} of {active.rounds} rounds" if active else "no run goes on"
    keys = len(status.waiting)
    return [
        ("Robots", str(len(robots)), f"{online} online"),
        ("Need attention", str(needs), f"{keys or 'no'} unknown key{'s' * (keys != 1)}"),
        ("Newest version", "-" if newest is None else str(newest), f"{runs} robots run it"),
        ("Run", active.state if active else "idle", going),
    ]


def one_robot(desk: Desk, name: str) -> dict[str, Any] | None:
    """Return all that is known of one robot; None: it is not in the register."""
    status = desk.status()
    robot = next((one for one in status.robots if one.name == name), None)
    if robot is None:
        return None
    last = last_outcomes(status.last_round).get(name)
    report = robot.report or {}
    row = robot_row(robot, last)
    facts = [
        ("Site", robot.site),
        ("State in the register", robot.state + (f": {robot.reason}" if robot.reason else "")),
        ("Last seen", row.seen),
        ("Runs version", row.version),
        ("Software", report.get("software") or "-"),
        ("Protocol", str(robot.protocol or "-")),
        ("Trains with", report.get("trainer") or "-"),
        ("Clock", row.clock),
        ("Free disk", row.disk),
        ("Battery", _battery(report)),
        ("Examples", str(report.get("examples", "-"))),
        ("Busy", report.get("busy") or "no"),
        ("Labels", row.labels or "none"),
        ("Refused updates in a row", str(robot.offenses)),
        ("Verdict of its last round", robot.verdict or "-"),
        ("Key", robot.fingerprint),
        *((f"Fact {key}", _said(value)) for key, value in (report.get("facts") or {}).items()),
    ]
    return {
        "robot": robot,
        "row": row,
        "about": facts,
        "needs": [desk.words(line) for line in about_robot(robot)],
        "rounds": _rounds_of(desk, name),
    }


def _said(value: object) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _battery(report: Mapping[str, Any]) -> str:
    if (level := report.get("battery")) is None:
        return "-"
    return f"{level:.0f} %" + (", charging" if report.get("charging") else "")


def _rounds_of(desk: Desk, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for record in desk.newest_rounds():
        mine = next((one for one in record.robots if one.name == name), None)
        if mine is not None:
            found.append(
                {
                    "run": record.run,
                    "round": record.round,
                    "version": record.version,
                    "kind": mine.outcome.kind,
                    "outcome": mine.outcome.text,
                    "examples": mine.num_examples,
                    "held_out": mine.counts.held_out,
                    "left_out": tell_left_out(mine.counts.left_out),
                    "scores": scores(mine.metrics),
                }
            )
        if len(found) == SHOWN_ROUNDS:
            break
    return found


def scores(metrics: Mapping[str, float]) -> str:
    """Return what was measured before and after, in one line; "" if nothing was."""
    return ", ".join(
        f"{name} {one.before:.3f} → {one.after:.3f}" for name, one in changes(metrics).items()
    )


def sites_of(status: FleetStatus) -> list[dict[str, Any]]:
    """Return a row for every site: its robots, its version, its cluster, what it learned last."""
    robots, record = judged(status), status.last_round
    own = {site: v for offer, v in status.assigned.items() if (site := channel_and_site(offer)[1])}
    told: dict[str, list[RobotRecord]] = {}
    for one in () if record is None else record.robots:
        told.setdefault(one.site, []).append(one)
    found = []
    for site in sorted({one.robot.site for one in robots} | own.keys()):
        mine = [one for one in robots if one.robot.site == site]
        replied = told.get(site, [])
        runs = Counter(robot.active_version for robot in status.robots if robot.site == site)
        cluster = None if record is None else record.clusters.get(site)
        found.append(
            {
                "site": site,
                "robots": len(mine),
                "online": sum(not one.robot.away for one in mine),
                "attention": sum(one.needs_attention for one in mine),
                "version": own.get(site),
                "runs": ", ".join(
                    f"{'none' if version is None else version} ({count})"
                    for version, count in runs.most_common(3)
                ),
                "cluster": cluster,
                "accepted": f"{sum(one.accepted for one in replied)} of {len(replied)}",
                "held_out": sum(one.counts.held_out or 0 for one in replied if one.accepted),
            }
        )
    return found
