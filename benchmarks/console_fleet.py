"""A server directory of a fleet that has worked for long: what console.py looks at in a browser.

Robots of eight sites in every state, runs of three rounds with 20 robots each, versions with what
the gate says of them. All of it is written by the server's own classes; nothing trains.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.round_time import make_server
from cloud_server.models.release_log import ReleaseLog
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Robot
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.round_record import RobotRecord, RoundRecord, mean_metrics, spread
from fleet_model.protocol.outcome import ACCEPTED, FAILED, NO_REPLY, Outcome
from fleet_model.protocol.proof import public_line
from fleet_model.protocol.report import RobotReport
from fleet_model.protocol.trial import TrialOutcome

SITES = 8
ROUNDS, IN_A_ROUND = 3, 20
VERSIONS = 40
FREE_MB = (48_000, 7_300, 120_000, 310)
OTHERS = (
    NO_REPLY,
    Outcome("refused", "its norm is 41.2, the median of this round is 0.9"),
    Outcome("busy", "battery 11 %"),
    FAILED,
)


def make_fleet(root: Path, port: int, robots: int, runs: int) -> ServerDirectory:
    """Write the directory of a server that is to listen on `port`; `root` is not there yet."""
    sync, os.fsync = os.fsync, lambda _: None  # 3 s in the place of minutes
    try:
        server_dir = ServerDirectory(root)
        make_server(server_dir, port, 8)
        names = _write_robots(server_dir, robots)
        _write_runs(server_dir, names, runs)
        _write_versions(server_dir, min(VERSIONS, runs))
    finally:
        os.fsync = sync
    return server_dir


def _write_robots(server_dir: ServerDirectory, count: int) -> list[str]:
    states = ("approved",) * 17 + ("pending", "suspended", "revoked")
    told = {"suspended": "3 refused updates in a row", "revoked": "it was stolen"}
    robots, seen = [], LastSeen(server_dir.seen)
    for number in range(count):
        state = states[number % len(states)]
        robot = Robot(
            name=f"robot-{number:04d}",
            site=f"hall-{number % SITES + 1}",
            key=public_line(ec.generate_private_key(ec.SECP384R1()).public_key()),
            added_at="2026-01-01T00:00:00+00:00",
            state=state,
            reason=told.get(state, ""),
            labels=("arm",) if number % 3 else (),
        )
        robots.append(robot)
        version = VERSIONS - number % 3
        bad = number % 11 == 10
        report = RobotReport(
            model_version=version,
            busy="a mission" if number % 7 == 6 else "",
            battery=float(number % 90 + 10),
            charging=number % 2 == 0,
            free_disk_mb=FREE_MB[number % len(FREE_MB)],
            examples=100 + number % 400,
            trainer="litert",
            software="0.1.0",
            facts={"docked": number % 2 == 0, "floor": number % 4},
            trial=TrialOutcome(
                version=version, why="worse" if bad else "",
                state="refused" if bad else "confirmed",
                running=version - 1, measure="accuracy", before=0.91, after=0.84, examples=40,
            ),
        )  # fmt: skip
        if number % 13 != 12:  # else it was never seen
            seen.looked(robot.name, version, report, 3, channel="stable")
    file = {"robots": [robot.model_dump(mode="json") for robot in robots]}
    server_dir.robots.write_text(json.dumps(file))
    seen.save(robots)
    return [robot.name for robot in robots if robot.state == "approved"]


def _write_runs(server_dir: ServerDirectory, names: Sequence[str], count: int) -> None:
    store, random = RunStore(server_dir.runs), np.random.default_rng(0)
    begin = time.time() - 3600 * count
    for number in range(count):
        run_id = time.strftime("%Y%m%d-%H%M%S", time.gmtime(begin + 3600 * number))
        failed = number % 25 == 24
        closed = 1 if failed else ROUNDS
        for record in _rounds(run_id, number, names, closed, random):
            server_dir.append_history(record.as_json())
        run = Run(
            id=run_id,
            channel="stable",
            rounds=ROUNDS,
            state="failed" if failed else "finished",
            rounds_closed=closed,
            first_version=ROUNDS * number,
            published_version=None if failed else ROUNDS * (number + 1),
            error="round 2: 0 good updates, expected 2" if failed else "",
            started_at=begin + 3600 * number,
            ended_at=begin + 3600 * number + 190,
            seconds=190.4,
        )
        store.save(run)


def _rounds(
    run_id: str, number: int, names: Sequence[str], closed: int, random: np.random.Generator
) -> Iterator[RoundRecord]:
    for index in range(closed):
        chosen = random.choice(len(names), min(IN_A_ROUND, len(names)), replace=False)
        robots = tuple(_robot(names[at], at, index, random) for at in sorted(chosen))
        means = mean_metrics(robots)
        yield RoundRecord(
            run=run_id, round=index + 1, version=ROUNDS * number + index + 1, seconds=61.5,
            robots=robots, metrics=means, asked=len(robots), request_bytes=25_620,
            spread=spread(robots, means), label_counts={"a": 900, "b": 1100},
            clusters={f"hall-{site + 1}": site % 2 + 1 for site in range(SITES)},
        )  # fmt: skip


def _robot(name: str, number: int, index: int, random: np.random.Generator) -> RobotRecord:
    draw = int(random.integers(0, 16))
    outcome = OTHERS[draw] if draw < len(OTHERS) else ACCEPTED
    at = 0.62 + 0.08 * index + 0.1 * float(random.random())
    metrics = {
        "held_out": 40.0, "left_out_unknown_label": float(number % 5), "accuracy_before": at,
        "accuracy_after": at + 0.06, "loss_before": 1.3 - at, "loss_after": 1.1 - at,
    }  # fmt: skip
    good = outcome == ACCEPTED
    return RobotRecord(
        name=name, site=f"hall-{number % SITES + 1}", outcome=outcome,
        num_examples=200 if good else 0, weight=200 if good else 0, norm=0.9 if good else 0.0,
        num_steps=70 if good else 0, update_bytes=25_620 if good else 0,
        metrics=metrics if good else {},
    )  # fmt: skip


def _write_versions(server_dir: ServerDirectory, count: int) -> None:
    store, releases = DirectoryStore(server_dir.store), ReleaseLog(server_dir.releases)
    for version in range(1, count + 1):
        store.reissue(0, version, f"2026-02-{version % 28 + 1:02d}T09:00:00+00:00")
        scores = {"before": {"accuracy": 0.86}, "after": {"accuracy": 0.86 + version / 1000}}
        releases.add(version, "published", f"run {version}", examples=800, **scores)
    store.offer("stable", count)
    releases.add(
        count + 1, "withheld", f"run {count + 1}", examples=800,
        before={"accuracy": 0.9}, after={"accuracy": 0.81},
        reasons=[{"kind": "worse", "words": "accuracy falls from 0.900 to 0.810"}],
    )  # fmt: skip
