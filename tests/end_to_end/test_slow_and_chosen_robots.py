"""A slow robot in buffered rounds, and rounds that choose whom they ask: real server, real agents.

The agents' trainer is a plug-in that adds one to every weight: what was folded is read off them.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from cloud_server.aggregation.staleness import staleness_weight
from cloud_server.cli.admin_client import AdminClient
from cloud_server.robots.register import Register
from cloud_server.state.checkpoints import Checkpoints
from edge_agent.cli.enroll import enroll
from edge_agent.robot.settings import ExampleSettings
from fleet_model.errors import FleetError

pytestmark = [pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests" / "cloud_server" / "killed" / "killing_server.py"  # makes no exports
QUICK, SLOW = (
    "benchmarks.constant_trainer:ConstantTrainer",
    "tests.end_to_end.held_trainer:HeldTrainer",
)
FITS = {"site": "hall", "labels": ("gpu",), "docked": True}
# Two that CHOOSING may ask, and for each of its conditions one robot that fails this one alone.
ROBOTS = {
    "r1": FITS,
    "r2": FITS,
    "r-attic": FITS | {"site": "attic"},
    "r-away": FITS | {"docked": False},
    "r-slow": FITS | {"labels": ()},
}
CHOOSING = {"SITES": "hall,yard", "LABELS": "gpu", "QUERY": "docked", "TARGET": "1", "QUORUM": "1"}
ROUNDS = 3


class ChosenFleet:
    """Agents, and one server after another on the same directory."""

    def __init__(self, fleet, server_dir):
        self.fleet, self.server_dir = fleet, server_dir
        self.let_slow_answer = fleet.root / "let-slow-answer"
        self.client = AdminClient(server_dir)
        for name, traits in ROBOTS.items():
            self.admit(name, **traits)

    def admit(self, name, site, labels, docked):
        directory = self.fleet.root / "robots" / name
        # The trainer reads no examples, but a robot without a path to some takes no part.
        line = enroll(
            self.server_dir.kit, directory, ExampleSettings(paths=(directory,)), train=True
        )
        Register(self.server_dir.robots).add(name, site, line, labels=labels)
        (directory / "facts.json").write_text(json.dumps({"docked": docked}))
        environment = {
            "PYTHONPATH": str(ROOT),
            "EDGE_AGENT_TRAINING__TRAINER": SLOW if name == "r-slow" else QUICK,
            "EDGE_AGENT_POLL__IDLE_S": "0.3",
            "EDGE_AGENT_SERVER__CHANNEL": "empty",  # no time for models
            "HELD_TRAINER_UNTIL": str(self.let_slow_answer),
        }
        command = ("-m", "edge_agent.cli", "run", "--config", directory / "agent.toml")
        self.fleet.start(name, *command, environment=environment)

    def serve(self, **rounds):
        """Start a server with these settings; return when all robots have reported to it."""
        if "server" in self.fleet.processes:
            self.fleet.stop("server")
        settings = {f"FLEETLEARN_ROUNDS__{key}": value for key, value in rounds.items()}
        self.fleet.start("server", SERVER, self.server_dir.root, environment=settings)
        self.fleet.wait("all reports", lambda: self.reporting() == ROBOTS.keys())

    def reporting(self):
        try:
            robots = self.client.status()["robots"]
        except FleetError:  # it does not listen yet
            return set()
        return {robot["name"] for robot in robots if robot["online"] and robot["report"]}

    def start_run(self, rounds):
        return self.client.start_run(rounds)["id"]

    def end_of(self, run):
        """Wait until it is published; return how it ended."""

        def state():
            return self.client.run(run)["state"]

        self.fleet.wait("the end of the run", lambda: state() in ("finished", "failed", "stopped"))
        return state()

    def closed(self, run):
        """Return the rounds that the history holds of a run."""
        lines = (
            self.server_dir.history.read_text().splitlines()
            if self.server_dir.history.exists()
            else []
        )
        return [record for line in lines if (record := json.loads(line))["run"] == run]


@pytest.fixture(scope="module")
def chosen(fleet, new_server_dir):
    return ChosenFleet(fleet, new_server_dir(fleet.server))


def robots_of(record):
    return {robot["name"]: robot for robot in record["robots"]}


def change(checkpoints, version):
    """Return what the round that made a version has added to each weight."""
    after, before = checkpoints.load(version).weights, checkpoints.load(version - 1).weights
    return np.concatenate([(after[name] - before[name]).ravel() for name in after])


def staleness_of_slow(record):
    return robots_of(record).get("r-slow", {}).get("staleness", 0)


def test_a_slow_update_is_folded_rounds_later_and_counts_less(chosen):
    chosen.serve(MODE="buffered", ROBOTS="r1,r2,r-slow", KEEP_CHECKPOINTS="999", MAX_STALENESS="99")
    run = chosen.start_run(999)
    chosen.fleet.wait("rounds without r-slow", lambda: len(chosen.closed(run)) >= 2)
    chosen.let_slow_answer.touch()
    chosen.fleet.wait(
        "an old update of r-slow", lambda: any(map(staleness_of_slow, chosen.closed(run)))
    )
    chosen.client.stop_run(run)
    assert chosen.end_of(run) == "stopped"

    records = chosen.closed(run)

    assert {record["mode"] for record in records} == {"buffered"}
    meeting = next(record for record in records if staleness_of_slow(record))
    assert robots_of(meeting)["r-slow"]["outcome"] == "accepted"
    asked = meeting["round"] - staleness_of_slow(meeting)
    assert asked in {one["round"] for one in chosen.fleet.status("r-slow")["rounds"]}
    # Nobody waited for it: the rounds in between closed with the quorum of the other two.
    for record in records[asked - 1 : meeting["round"] - 1]:
        assert robots_of(record).keys() == {"r1", "r2"}
    checkpoints = Checkpoints(chosen.server_dir.checkpoints)
    for record in records:
        counted = [staleness_weight(robot["staleness"]) for robot in record["robots"]]
        gained = change(checkpoints, record["version"])
        np.testing.assert_allclose(gained, np.mean(counted), atol=1e-4)


def test_a_round_asks_as_many_as_are_wanted_of_those_that_fit(chosen):
    chosen.serve(**CHOOSING)
    reasons = {
        "r-attic": "site attic is not among rounds.sites",
        "r-away": "rounds.query does not hold (docked = False)",
        "r-slow": "lacks the label gpu (rounds.labels)",
    }
    records = []

    def all_told():
        run = chosen.start_run(ROUNDS)
        assert chosen.end_of(run) == "finished"
        records.extend(chosen.closed(run))
        log = chosen.fleet.log("server")
        return all(f": {name} is left out: {why}" in log for name, why in reasons.items())

    # After the restart robots connect anew: who is just away for that is told of a run later.
    chosen.fleet.wait("the reasons of all", all_told)

    assert {(record["mode"], record["asked"]) for record in records} == {("sync", 1)}
    for record in records:
        ((name, robot),) = robots_of(record).items()
        assert name in ("r1", "r2")
        assert robot["outcome"] == "accepted"
