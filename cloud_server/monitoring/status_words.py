"""What happened and what there is to do, in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

from cloud_server.monitoring.fleet_status import FleetStatus, OpenRoundStatus
from cloud_server.monitoring.robot_status import RobotStatus
from cloud_server.runs.runs import Run
from cloud_server.state.logs import one_line
from cloud_server.state.names import NAMED, names
from cloud_server.state.round_record import RobotRecord, RoundRecord
from cloud_server.state.verdict_log import not_counted
from fleet_model.protocol.example_counts import tell_left_out
from fleet_model.protocol.outcome import OutcomeKind

MAX_WAITING = 5  # unknown keys: strangers must not push everything else off the screen
# Robots that need no reason each -> how the sentence about them begins.
GROUPS: Mapping[OutcomeKind, str] = {
    "accepted": "accepted",
    "busy": "busy",
    "no_reply": "no reply from",
    "offline": "gone offline",
    "not_admitted": "suspended, revoked or forgotten at work",
    "not_reached": "not reached",
}


def answer_of(status: FleetStatus) -> dict[str, Any]:
    """Return what `cloud-server status` shows: JSON values, and sentences about them."""
    return {**status.as_json(), "words": tell(status)}


def tell(status: FleetStatus) -> list[str]:
    """Return sentences: the open round, the last round, the last run, then what needs a person."""
    lines = []
    if status.open_round is not None:
        lines.append(_open_round(status.open_round))
    if status.last_round is not None:
        lines += _last_round(status.last_round)
    if status.runs:
        lines += _run(status.runs[-1], status.taken_up)
    lines += _answers("second answers, which are not counted", status.answered_again)
    lines += _answers("answers to questions that were over", status.answered_late)
    lines += _answers("replies that came again, which count once at most", status.repeated)
    for robot in status.robots:
        lines += _robot(robot)
    lines += name_no_server(
        [r.name for r in status.robots if r.names_server is False and r.state != "revoked"]
    )
    for key in status.waiting[:MAX_WAITING]:
        lines.append(f"unknown key {key.fingerprint} asks to take part; to admit it: {key.reason}")
    if (more := len(status.waiting) - MAX_WAITING) > 0:
        lines.append(f"{more} more unknown keys ask to take part")
    return [one_line(line) for line in lines]


def _open_round(now: OpenRoundStatus) -> str:
    return (
        f"run {now.run} round {now.round}: {now.asked} robots asked, {now.answered} answered, "
        f"{now.good} good updates, {now.seconds_left:.0f} s left"
    )


def _last_round(record: RoundRecord) -> list[str]:
    robots = record.robots
    groups = {
        begin: [robot.name for robot in robots if robot.outcome.kind == kind]
        for kind, begin in GROUPS.items()
    }
    told = "; ".join(f"{begin} {names(group)}" for begin, group in groups.items() if group)
    late = f"; {record.late} updates came too late" if record.late else ""
    lines = [
        f"run {record.run} round {record.round} closed in {record.seconds:.1f} s with version "
        f"{record.version}: {told or 'nobody took part'}{late}"
    ]
    if capped := not_counted(record):
        told = names(f"{name} ({words})" for name, words in capped)
        lines.append(f"accepted for fewer examples than claimed: {told}")
    if left_out := tell_left_out(record.left_out):
        lines.append(f"left out by robots: {left_out}")
    lines += [f"WARNING: {warning}" for warning in record.warnings]
    others = [robot for robot in robots if robot.outcome.kind not in GROUPS]
    return lines + _one_by_one(others)


def _one_by_one(robots: Sequence[RobotRecord]) -> list[str]:
    """Tell each reason: a refused or late update or a failure differs from robot to robot."""
    lines = [f"robot {r.name}: {r.outcome.text}" for r in robots[:NAMED]]
    if (rest := len(robots) - NAMED) > 0:
        lines.append(f"{rest} more robots were refused, late or failed; see `cloud-server history`")
    return lines


def _run(run: Run, taken_up: Mapping[str, int]) -> list[str]:
    lines = []
    if run.id in taken_up:
        lines.append(
            f"run {run.id} was taken up again after round {taken_up[run.id]}: the server had ended "
            "in the middle of it"
        )
    if run.error:
        lines.append(f"run {run.id} {run.state}: {run.error}")
    return lines


def _answers(what: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    told = names(f"{name} ({count})" for name, count in counts.items())
    return [f"{what}, since the server started: {told}"]


def name_no_server(robots: Sequence[str]) -> list[str]:
    """Return a sentence about robots whose proofs do not name this server, if there are any."""
    if not robots:
        return []
    return [
        f"requests of {names(robots)} do not name this server: another server where the same key "
        "is admitted could repeat them here; update the agents"
    ]


def _robot(robot: RobotStatus) -> list[str]:
    lines = [f"robot {robot.name} is refused: {robot.refusal}"] if robot.refusal else []
    if reason := (robot.report or {}).get("not_installed"):
        lines.append(f"robot {robot.name} does not run the newest model: {reason}")
    return [*lines, *_standing(robot)]


def _standing(robot: RobotStatus) -> list[str]:
    if robot.state == "suspended":
        return [
            f"robot {robot.name} is suspended: {robot.reason or 'by the operator'}; to let it take "
            f"part again: cloud-server robots approve DIR {robot.name}"
        ]
    if robot.state == "pending":
        return [
            f"robot {robot.name} waits for approval: cloud-server robots approve DIR {robot.name}"
        ]
    if robot.offenses > 1:
        return [f"robot {robot.name}: {robot.offenses} refused updates in a row: {robot.verdict}"]
    return []
