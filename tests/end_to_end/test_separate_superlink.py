"""A SuperLink of its own: stock processes carry messages, our ServerApp closes rounds in DIR."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
BIN = Path(sys.executable).parent
APP = Path(__file__).parents[2] / "deploy" / "superlink"
PATIENCE_S = 300.0
ROBOTS = {"r1": "hall-1/r1", "r2": "hall-2/r1"}


def _is_serverapp(process: psutil.Process) -> bool:
    try:
        return "serverapp" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it has ended, or is a zombie: one that ran before
        return False


class Stock:
    """`flower-superlink` and `flower-superexec` beside a server directory, as docs tell."""

    def __init__(self, fleet: Any) -> None:
        self.fleet = fleet
        self.port = fleet.free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.secret = fleet.root / "superexec.secret"
        self.secret.write_text("s" * 64)
        self.ca = fleet.server / "certificates" / "ca.crt"
        operator = fleet.root / "operator"
        operator.mkdir()
        (operator / "config.toml").write_text(
            '[superlink]\ndefault = "apart"\n[superlink.apart]\n'
            f'address = "{self.address}"\nroot-certificates = "{self.ca}"\n'
        )

    def start_superlink(self) -> None:
        self._start(
            "superlink", "flower-superlink", "--host", "127.0.0.1", "--port", self.port,
            "--ssl-ca-certfile", self.ca,
            "--ssl-certfile", self.fleet.server / "certificates" / "server.crt",
            "--ssl-keyfile", self.fleet.server / "secrets" / "server.key",
            "--enable-supernode-auth", "--database", self.fleet.root / "apart.db",
            "--disable-runtime-dependency-installation",
            "--isolation", "process", "--superexec-auth-secret-file", self.secret,
        )  # fmt: skip
        self.wait("the SuperLink", lambda: listening(self.port))

    def start_superexec(self) -> None:
        self._start(
            "superexec", "flower-superexec", "--runtime-api-address", self.address,
            "--root-certificates", self.ca, "--superexec-auth-secret-file", self.secret,
        )  # fmt: skip

    def flwr(self, *command: object) -> str:
        done = subprocess.run(
            [BIN / "flwr", *map(str, command)],
            env=environment(self.fleet.root / "operator"),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def run(self, rounds: int) -> None:
        config = f'fleetlearn-directory="{self.fleet.server}" num-server-rounds={rounds}'
        self.flwr("run", APP, "apart", "--run-config", config)

    def kill_serverapp(self) -> None:
        superexec = psutil.Process(self.fleet.processes["superexec"].pid)
        (serverapp,) = [p for p in superexec.children(recursive=True) if _is_serverapp(p)]
        serverapp.kill()

    def wait(self, what: str, done: Callable[[], object]) -> None:
        """Wait longer than the fleet does: stock processes take their time to come back."""
        end = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < end, f"{what} did not happen; {self.log()}"
            time.sleep(0.2)

    def log(self) -> str:
        logs = [file.stem for file in self.fleet.root.glob("*.log")]
        return "\n".join(f"{name}: {self.fleet.log(name)[-3000:]}" for name in logs)

    def _start(self, name: str, program: str, *arguments: object) -> None:
        with (self.fleet.root / f"{name}.log").open("ab") as log:
            self.fleet.processes[name] = subprocess.Popen(
                [BIN / program, *map(str, arguments)],
                env=environment(self.fleet.root / f"{name}-home"),
                stdout=log,
                stderr=log,
            )


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "NO_COLOR": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "FLEETLEARN_TRAINING__EPOCHS": "2",
        "FLEETLEARN_GATE__PUBLISH": "always",
        "FLEETLEARN_ROUNDS__DEADLINE_S": "240",
    }


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def history(fleet: Any) -> list[dict[str, Any]]:
    file = fleet.server / "history.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def runs(fleet: Any) -> list[dict[str, Any]]:
    files = sorted((fleet.server / "runs-apart").glob("*/run.json"))
    return [json.loads(file.read_text()) for file in files]


@pytest.fixture(scope="module")
def stock(fleet: Any) -> Stock:
    fleet.everywhere = fleet.without_trials
    fleet.init()
    fleet.start_server()
    stock = Stock(fleet)
    stock.start_superlink()
    stock.start_superexec()
    for name, recordings in ROBOTS.items():
        config = fleet.add_robot(name, "--examples", fleet.bag(recordings), run=False)
        stock.flwr("supernode", "register", config.parent / "robot.pub", "apart")
        link = {"EDGE_AGENT_SERVER__SUPERLINK": stock.address}
        fleet.start(name, "-m", "edge_agent.cli", "run", "--config", config, environment=link)
    return stock


def test_a_superlink_killed_in_a_run_is_started_again_and_the_run_finishes(fleet, stock):
    stock.run(rounds=3)
    stock.wait("a round", lambda: history(fleet))
    fleet.processes.pop("superlink").kill()
    stock.start_superlink()
    stock.wait("the end of the run", lambda: runs(fleet)[0]["state"] in ("finished", "failed"))
    (run,) = runs(fleet)
    assert run["state"] == "finished", f"{run}\n{stock.log()}"
    assert [record["round"] for record in history(fleet)] == [1, 2, 3]
    assert [r["outcome"] for r in history(fleet)[0]["robots"]] == ["accepted", "accepted"]
    assert run["published_version"] == 3
    stock.wait("the model", lambda: fleet.status("r1").get("active_version") == 3)


def test_a_serverapp_killed_in_a_run_goes_on_when_it_is_started_again(fleet, stock):
    stock.run(rounds=3)
    stock.wait("a round", lambda: len(history(fleet)) > 3)
    stock.kill_serverapp()
    stock.run(rounds=99)  # what the unfinished run had asked for still holds
    stock.wait("the end of the run", lambda: runs(fleet)[-1]["state"] in ("finished", "failed"))
    run = runs(fleet)[-1]
    assert run["state"] == "finished", f"{run}\n{stock.log()}"
    assert len(runs(fleet)) == 2
    assert [record["version"] for record in history(fleet)] == [1, 2, 3, 4, 5, 6]
    assert run["published_version"] == 6
