"""What an assistant can ask without changing anything: what the commands tell, in parts."""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloud_server.cli.assistants.asked import (
    OneRobot,
    OneRound,
    OneRun,
    Robots,
    Runs,
)
from cloud_server.cli.assistants.results import page
from cloud_server.cli.assistants.tool import Arguments, Page, Tool
from cloud_server.cli.assistants.versions import VERSIONS
from cloud_server.cli.runs.compare_command import compared
from cloud_server.cli.runs.following import round_lines
from cloud_server.cli.runs.known import (
    client_of,
    known_run,
    known_runs,
    newest_run,
    server_dir_of,
)
from cloud_server.cli.terminal import release_lines
from cloud_server.monitoring.run_words import doubts, outcome_of_run
from cloud_server.robots.register import Register
from cloud_server.runs.run_store import brief
from cloud_server.state.history import ClosedRounds
from cloud_server.state.round_record import RobotRecord, RoundRecord
from cloud_server.state.words import names
from fleet_model.errors import SettingsError
from fleet_model.protocol.example_counts import is_count, tell_left_out
from fleet_model.types import TRAIN

ROUNDS_OF_ROBOT = 10
# What a list says of a robot; `get_robot` says the rest.
_OF_ROBOT = (
    "name", "site", "state", "reason", "labels", "online", "away", "last_seen_s", "active_version",
    "verdict", "refusal", "warning",
)  # fmt: skip
_OF_REPORT = ("busy", "battery", "examples", "free_disk_mb", "software", "not_installed", "trial")


def fleet_status(directory: Path, _: Arguments) -> dict[str, Any]:
    """Return what `status` tells, with counts in place of robots and runs."""
    answer = client_of(directory).status()
    robots, last = answer["robots"], answer["last_round"]
    return {
        "words": answer["words"],
        "robots": {
            "total": len(robots),
            "online": sum(robot["online"] for robot in robots),
            "away": sum(robot["away"] for robot in robots),
            "by_state": dict(Counter(robot["state"] for robot in robots)),
            "unknown_keys_that_ask": len(answer["waiting"]),
        },
        "channels": answer["channels"],
        "assigned": answer["assigned"],
        "rollouts": [
            {name: value for name, value in one.items() if name != "robots"}
            for one in answer["rollouts"]
        ],
        "open_round": answer["open_round"],
        "last_round": None if last is None else _round(last),
        "newest_run": summary_of_run(answer["runs"][-1]) if answer["runs"] else None,
    }


def list_robots(directory: Path, asked: Robots) -> dict[str, Any]:
    """Return robots by name, as `status` and `robots list` tell of them."""
    robots = client_of(directory).status()["robots"]
    sites = {robot["site"] for robot in robots}
    if asked.site is not None and asked.site not in sites:
        raise SettingsError(
            f"there is no robot of site {asked.site!r}; sites with robots: {names(sites)}"
        )
    found = [
        _robot(robot)
        for robot in robots
        if asked.state in (None, robot["state"])
        and asked.site in (None, robot["site"])
        and asked.online in (None, robot["online"])
    ]
    return page("robots", found, asked.offset, asked.limit)


def get_robot(directory: Path, asked: OneRobot) -> dict[str, Any]:
    """Return all that is known of a robot, with its part in the newest rounds."""
    server_dir = server_dir_of(directory)
    known = Register(server_dir.robots).require(asked.name)
    answer = client_of(directory).status()
    robot = next((one for one in answer["robots"] if one["name"] == asked.name), None)
    if robot is None:
        raise SettingsError(
            f"robot {asked.name} is new in the register, and the running server has not read it "
            "yet; ask again in a few seconds"
        )
    newest = ClosedRounds(server_dir.trained(), newest=10 * ROUNDS_OF_ROBOT)
    rounds = [
        {"run": record.run, "round": record.round, "version": record.version, **_part(one)}
        for record in newest
        for one in record.robots
        if one.name == asked.name
    ]
    return {
        **robot,
        "added_at": known.added_at,
        "rounds": rounds[: -ROUNDS_OF_ROBOT - 1 : -1],
        "wants": {
            one["channel"]: member["wants"]
            for one in answer["rollouts"]
            for member in one["robots"]
            if member["name"] == asked.name
        },
    }


def list_runs(directory: Path, asked: Page) -> dict[str, Any]:
    """Return runs, the newest first."""
    return page(
        "runs", [*map(summary_of_run, reversed(known_runs(directory)))], asked.offset, asked.limit
    )


def get_run(directory: Path, asked: OneRun) -> dict[str, Any]:
    """Return a run with its newest rounds, in numbers and in words."""
    run = known_run(directory, asked.run or newest_run(directory))
    words = [line for record in run["closed"] for line in round_lines(record)]
    words += doubts(run["closed"][-1]) if run["closed"] else []
    words += release_lines(directory, run)
    measured = run.get("measured")
    return {
        **summary_of_run(run),
        "first_version": run["first_version"],
        "release": run["release"],
        "words": words,
        "closed": [_round(record) for record in run["closed"]],
        "earlier_rounds_left_out": max(run["rounds_closed"] - len(run["closed"]), 0),
        "open_round": run.get("open_round"),
        "measured": None if measured is None else _round(measured),
    }


def get_round(directory: Path, asked: OneRound) -> dict[str, Any]:
    """Return who was asked in a round, who answered, who was refused, and why."""
    run = known_run(directory, asked.run)
    if run.get("kind", TRAIN) != TRAIN:
        raise SettingsError(f"run {asked.run} trains nothing: get_run tells what it found")
    server_dir = server_dir_of(directory)
    lineage = server_dir.of(run["channel"]) if run["channel"] else server_dir.trained()
    record: RoundRecord | None = None
    for one in ClosedRounds(lineage, asked.run):
        record = one if one.round == asked.round else record
    if record is None:
        raise SettingsError(
            f"run {asked.run} has closed {run['rounds_closed']} rounds: there is no round "
            f"{asked.round} of it"
        )
    found = [
        {"name": robot.name, "site": robot.site, **_part(robot)}
        for robot in record.robots
        if asked.verdict in (None, robot.outcome.kind)
    ]
    return {
        **_round(record.as_json()),
        **page("robots", found, asked.offset, asked.limit),
    }


def compare_runs(directory: Path, asked: Runs) -> dict[str, Any]:
    """Return runs side by side: by rounds, by bytes and by seconds."""
    return compared(directory, asked.runs, asked.measure)[0]


def _robot(robot: Mapping[str, Any]) -> dict[str, Any]:
    report = robot["report"] or {}
    told = {name: report[name] for name in _OF_REPORT if name in report}
    return {name: robot[name] for name in _OF_ROBOT} | told


def _round(record: dict[str, Any]) -> dict[str, Any]:
    """Return a round without its robots; `left_out` is of a page everywhere here."""
    told = dict(brief(record))
    return told | {"examples_left_out": tell_left_out(told.pop("left_out", {}))}


def _part(robot: RobotRecord) -> dict[str, Any]:
    """Return what a robot did in a round, and what it left out."""
    counts = robot.counts
    return {
        "verdict": robot.outcome.kind,
        "outcome": robot.outcome.text,
        "training_examples": robot.num_examples,
        "held_out_examples": counts.held_out,
        "examples_left_out": tell_left_out(counts.left_out),
        "doubts": dict(counts.concerns),
        "weight": robot.weight,
        "capped": robot.capped,
        "update_bytes": robot.update_bytes,
        "staleness": robot.staleness,
        "measures": {n: value for n, value in robot.metrics.items() if not is_count(n)},
    }


def summary_of_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list says of a run."""
    names = (
        "id", "kind", "state", "channel", "rounds", "rounds_closed", "published_version", "error",
        "seconds", "scheduled", "stopping",
    )  # fmt: skip
    told = {name: run.get(name) for name in names}
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run["started_at"]))
    apart = {"apart": True} if run.get("apart") else {}
    return {**told, "began": began, "outcome": outcome_of_run(run), **apart}


READING = (
    Tool(
        name="fleet_status",
        about="What happens in the fleet now and what needs a person, in sentences, with counts of "
        "robots, versions of channels, rollouts, the open and the last round.",
        answer=fleet_status,
    ),
    Tool(
        name="list_robots",
        about="Robots of the register: site, state, whether it is online, version, why it was "
        "refused or does not train.",
        arguments=Robots,
        answer=list_robots,
    ),
    Tool(
        name="get_robot",
        about="All that is known of one robot: its last report, and in its newest rounds what "
        "became of its update and which examples it left out, and why.",
        arguments=OneRobot,
        answer=get_robot,
    ),
    Tool(
        name="list_runs",
        about="Training runs and evaluations, the newest first.",
        arguments=Page,
        answer=list_runs,
    ),
    Tool(
        name="get_run",
        about="One run: its newest rounds in numbers and sentences, what became of its model.",
        arguments=OneRun,
        answer=get_run,
    ),
    Tool(
        name="get_round",
        about="One closed round: every robot that was asked, whether its update was accepted or "
        "refused, why, and what it measured.",
        arguments=OneRound,
        answer=get_round,
    ),
    Tool(
        name="compare_runs",
        about="Training runs side by side: a measure by rounds, bytes and seconds, and in which "
        "settings they differ.",
        arguments=Runs,
        answer=compare_runs,
    ),
    *VERSIONS,
)
