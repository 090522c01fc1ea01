"""A small fleet of real processes on 127.0.0.1: server over TLS, robots with bags of their own."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from free_ports import free_port
from polled_admin import PolledAdmin

from cloud_server.robots.register import Register
from cloud_server.state.directory import ServerDirectory
from edge_agent.cli.enroll import enroll
from edge_agent.robot.settings import ExampleSettings

sys.path.append(str(Path(__file__).parent))
ROOT = Path(__file__).parents[2]
LABELS = "circle,square,star,triangle"
SHARED_PORT = "64999"
PATIENCE_S = 600.0
START = ("-m", "cloud_server.cli", "start")
# Publishes the files of version 0 under every number: for what happens in rounds, not in exports.
WITHOUT_EXPORTS = (ROOT / "tests" / "cloud_server" / "killed" / "killing_server.py",)
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "250",  # tables break no words
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # Two epochs, two robots: enough to see the loss fall within a second or two.
    "FLEETLEARN_TRAINING__EPOCHS": "2",
    # Against robots that hang: a busy machine must not miss it.
    "FLEETLEARN_ROUNDS__DEADLINE_S": "240",
    # Of fleets that are not about the gate: their robots have a few frames, or are scripted.
    "FLEETLEARN_GATE__PUBLISH": "always",
}


class SmallFleet:
    """Everything a person would type, with the exit codes and outputs that they would see."""

    # Of robots that install whatever is published: after a round or two on a few frames a model
    # may well be worse, and a trial is right to refuse it. An older agent does not know these.
    without_trials: ClassVar = {
        "EDGE_AGENT_INSTALL__EXAMPLES": "0",
        "EDGE_AGENT_INSTALL__SLOWER": "1000",
        "EDGE_AGENT_INSTALL__PROBATION_S": "0",
    }

    def __init__(self, root: Path, made_once: Callable[[str, Callable], Path]) -> None:
        self.root = root
        self.server = root / "server"
        self.made_once = made_once
        self.port = self.free_port()
        self.admin = PolledAdmin(ServerDirectory(self.server))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment: dict[str, str] = {}  # of the server, over ENVIRONMENT
        self.everywhere: dict[str, str] = {}  # of every process, over ENVIRONMENT

    free_port = staticmethod(free_port)

    def type(
        self, *command: object, exit_code: int = 0, patience_s: float = 900.0
    ) -> subprocess.CompletedProcess[str]:
        module = {
            "edge-agent": "edge_agent.cli",
            "cloud-server": "cloud_server.cli",
            "site-relay": "site_relay",
        }[str(command[0])]
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, command[1:])],
            env={**ENVIRONMENT, **self.everywhere},
            capture_output=True,
            text=True,
            timeout=patience_s,
        )
        assert done.returncode == exit_code, f"{command}: {done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def init(self, *options: object) -> None:
        """Make the server directory; fleets with equal options share one export: it takes long."""

        def make(shared: Path) -> None:
            self.type(
                "cloud-server", "init", shared, "--labels", LABELS, "--port", SHARED_PORT,
                "--backbone", "mobilenet-v2-035", *options,
            )  # fmt: skip

        shared = self.made_once("-".join(["server", *map(str, options)]), make)
        shutil.copytree(shared, self.server)
        for file in (self.server / "server.toml", self.server / "kit" / "kit.toml"):
            text = file.read_text()
            assert text.count(SHARED_PORT) == 1
            file.write_text(text.replace(SHARED_PORT, str(self.port)))

    def start_server(self, *, exports: bool = True, dies: Sequence[object] = ()) -> None:
        """Start it; `dies` says at which call of which step (without exports: killing_server)."""
        command = START if exports else WITHOUT_EXPORTS
        self.start("server", *command, self.server, *dies, environment=self.environment)
        self.wait("the port", lambda: _listening(self.port))

    def add_robot(self, name: str, *options: object, site: str = "hall", run: bool = True) -> Path:
        """Enroll, admit, start a robot; return its agent.toml."""
        directory = self.root / "robots" / name
        self.type("edge-agent", "enroll", self.server / "kit", "--dir", directory, *options)
        self.type(
            "cloud-server", "robots", "add", self.server, name, "--site", site,
            "--key", directory / "robot.pub",
        )  # fmt: skip
        if run:
            self.run_robot(name)
        return directory / "agent.toml"

    def run_robot(self, name: str, **environment: str) -> None:
        """Start the agent of a robot that is enrolled."""
        config = self.root / "robots" / name / "agent.toml"
        command = ("-m", "edge_agent.cli", "run", "--config", config)
        self.start(name, *command, environment=environment)

    def start_scripted(
        self, process: str, behaviors: Mapping[str, str], sites: Mapping[str, str] | None = None
    ) -> None:
        """Admit robots and run them in one process of scripted_robots.py."""
        server_dir = ServerDirectory(self.server)
        arguments = []
        for name, behavior in behaviors.items():
            directory = self.root / "robots" / name
            line = enroll(server_dir.kit, directory, ExampleSettings(), train=True)
            Register(server_dir.robots).add(name, (sites or {}).get(name, "hall"), line)
            arguments.append(f"{name}={directory / 'robot.key'}={behavior}")
        script = Path(__file__).with_name("scripted_robots.py")
        address = f"127.0.0.1:{self.port}"
        self.start(process, script, address, server_dir.certificates / "ca.crt", *arguments)

    def bag(self, robot: str, frames: int = 60) -> Path:
        """Return a bag of the robot-camera generator."""
        script = ROOT / "datasets" / "robot_camera.py"
        command = [sys.executable, script, self.root / "bags", "--robots", robot]
        command += ["--frames", frames, "--seed", 2]
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
        return self.root / "bags" / robot

    def start(
        self,
        name: str,
        *command: object,
        environment: Any = None,
        python: Sequence[str] = (sys.executable,),
    ) -> None:
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*python, *map(str, command)],
                env={**ENVIRONMENT, **self.everywhere, **(environment or {})},
                stdout=log,
                stderr=log,
            )

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    def status(self, name: str) -> dict[str, Any]:
        path = self.root / "robots" / name / "state" / "status.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def wait(self, what: str, done: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
        end = time.monotonic() + patience_s
        while not done():
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended before {what}:\n{self.log(name)}"
            assert time.monotonic() < end, f"{what} did not happen; server:\n{self.log('server')}"
            time.sleep(0.2)

    def online(self) -> set[str]:
        return {robot["name"] for robot in self.admin().status()["robots"] if robot["online"]}

    def train(self, rounds: int) -> dict[str, Any]:
        command = ("cloud-server", "train", self.server, "--rounds", rounds, "--json")
        done = self.type(*command, patience_s=900.0 + 240.0 * rounds)
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def measured(self) -> dict[str, float]:
        """Return the accuracy on frames that robots never trained on, by robot."""
        done = self.type("cloud-server", "evaluate", self.server, "--json")
        record = json.loads(done.stdout.splitlines()[-1])["measured"]
        return {robot["name"]: robot["metrics"]["accuracy"] for robot in record["robots"]}

    def kill(self) -> None:
        """End whatever runs."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.processes.clear()

    def stop(self, name: str) -> int:
        process = self.processes.pop(name)
        process.terminate()
        try:
            return process.wait(240)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{name} does not end; its log:\n{self.log(name)[-4000:]}"
            ) from None


@pytest.fixture(scope="module")
def new_fleet(
    tmp_path_factory: pytest.TempPathFactory, made_once: Callable[[str, Callable], Path]
) -> Iterator[Callable[[], SmallFleet]]:
    """Return a maker of empty places for fleets; whatever runs in them at the end is killed."""
    made: list[SmallFleet] = []

    def make() -> SmallFleet:
        made.append(SmallFleet(tmp_path_factory.mktemp("fleet"), made_once))
        return made[-1]

    yield make
    for fleet in made:
        fleet.kill()


@pytest.fixture(scope="module")
def fleet(new_fleet: Callable[[], SmallFleet]) -> SmallFleet:
    """An empty place for a fleet."""
    return new_fleet()


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def scripted() -> Any:
    """Return the module scripted_robots, which no package holds."""
    return _module("scripted_robots")


@pytest.fixture(scope="module")
def cut_proxy() -> Iterator[Callable[[int], Any]]:
    """Return a maker of cables to a port that can be cut; see cut_proxy.py."""
    made: list[Any] = []

    def make(port: int) -> Any:
        made.append(_module("cut_proxy").CutProxy(port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


def _module(name: str) -> Any:
    file = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
