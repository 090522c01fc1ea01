"""Directories of commit 87262d4 are opened and continued (tests/data/make_state_87262d4.py)."""

import csv
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from cloud_server.initialize import renew_certificate
from cloud_server.state.directory import ServerDirectory
from fleet_model.weights import read_weights

DATA = Path(__file__).parents[1] / "data"
SERVER = Path(__file__).parents[1] / "cloud_server" / "killed" / "killing_server.py"
ROBOTS = ("r1", "r2")
OLD_PORT = "29443"
PATIENCE_S = 200


class OldFleet:
    """The old directories, and this tree's processes on them."""

    def __init__(self, root):
        with tarfile.open(DATA / "state_87262d4.tar.xz") as archive:
            archive.extractall(root, filter="fully_trusted")  # our own file, with its modes
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.root, self.server_dir = root, ServerDirectory(root / "server")
        self.expected = json.loads((root / "expected.json").read_text())
        for file in (self.server_dir.settings, *(root / name / "agent.toml" for name in ROBOTS)):
            file.write_text(file.read_text().replace(OLD_PORT, str(port)))
        folders = {name: root / name / "state" / "models" / "trainers" for name in ROBOTS}
        self.old_trainers = {n: {p.name for p in folder.iterdir()} for n, folder in folders.items()}
        renew_certificate(self.server_dir)  # the old one ends in 2029
        self.processes = {}

    def start(self, name, *command):
        log = (self.root / f"{name}.log").open("ab")
        environment = {
            **os.environ,
            "FLEETLEARN_GATE__PUBLISH": "always",
            "FLEETLEARN_ROUNDS__DEADLINE_S": "200",
            "FLEETLEARN_ROUNDS__QUORUM": "2",
            "FLEETLEARN_LIMITS__REFUSALS_PER_S": "1000",
            "OMP_NUM_THREADS": "1",
        }
        self.processes[name] = subprocess.Popen(
            [sys.executable, *map(str, command)], env=environment, stdout=log, stderr=log
        )

    def log(self, name):
        return (self.root / f"{name}.log").read_text()

    def ask(self, *words):
        command = [sys.executable, "-m", "cloud_server.cli", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def until(self, what, done):
        end = time.monotonic() + PATIENCE_S
        while not done():
            logs = "\n".join(self.log(name) for name in self.processes)
            assert time.monotonic() < end, f"{what}: did not happen\n{logs}"
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} has ended\n{self.log(name)}"
            time.sleep(0.2)

    def version(self, robot):
        manifest = self.root / robot / "state" / "models" / "current" / "manifest.json"
        return json.loads(manifest.read_text())["version"]

    def close(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(240)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Return the fleet after the run that commit 87262d4 had begun is finished and installed."""
    fleet = OldFleet(tmp_path_factory.mktemp("old"))
    try:
        fleet.start("server", SERVER, fleet.server_dir.root, "close", 10**9)
        for name in ROBOTS:
            config = fleet.root / name / "agent.toml"
            fleet.start(name, "-m", "edge_agent.cli", "run", "--config", config)
        run = fleet.server_dir.root / "runs" / fleet.expected["run"] / "run.json"

        def state():
            return json.loads(run.read_text())["state"]

        fleet.until("the run ends", lambda: state() in ("finished", "failed"))
        assert state() == "finished", fleet.log("server")
        want = fleet.expected["version"]
        fleet.until("robots follow", lambda: all(fleet.version(name) == want for name in ROBOTS))
        yield fleet
    finally:
        fleet.close()


@pytest.mark.slow
def test_the_run_continues_in_its_round_to_the_same_weights(fleet):
    newest = max(int(folder.name) for folder in fleet.server_dir.checkpoints.iterdir())
    assert newest == fleet.expected["version"]
    got = read_weights(fleet.server_dir.checkpoints / f"{newest:06d}" / "weights.safetensors")
    want = read_weights(fleet.root / "expected.safetensors")
    assert got.keys() == want.keys()
    for name in want:
        assert np.array_equal(got[name], want[name]), name
    # The reply that the old server had stored was used: its robot did not train round 2 again.
    log = fleet.log("server")
    assert re.search(r"round 2 .*: 1 replies (kept|stored)", log), log


@pytest.mark.slow
def test_the_trainer_that_the_old_agent_had_is_the_channels(fleet):
    for name in ROBOTS:
        models = fleet.root / name / "state" / "models"
        (trainer,) = (models / "trainers").iterdir()
        assert (models / "channels" / "stable.trainer").resolve() == trainer.resolve()
        assert trainer.name in fleet.old_trainers[name]
        active = (models / "channels" / "stable").resolve()
        assert active == (models / "current").resolve()


@pytest.mark.slow
def test_the_old_rounds_stay_in_the_history_with_their_verdicts(fleet):
    rows = list(csv.DictReader(io.StringIO(fleet.ask("history", fleet.server_dir.root, "--csv"))))
    assert [row["version"] for row in rows] == [v for v in "23456" for _ in ROBOTS]
    assert {row["verdict"] for row in rows} == {"accepted"}


@pytest.mark.slow
def test_both_robots_are_known_with_their_last_verdict(fleet):
    answer = json.loads(fleet.ask("status", fleet.server_dir.root, "--json"))
    robots = {robot["name"]: robot for robot in answer["robots"]}
    assert robots.keys() == set(ROBOTS)
    assert all(robot["online"] for robot in robots.values())
    assert not answer["waiting"]
