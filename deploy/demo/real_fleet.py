"""A fleet of real processes on this machine: what a person types, starts and waits for."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0  # for anything that should happen within seconds
PROBATION = "EDGE_AGENT_INSTALL__PROBATION_S=2"  # a minute, if nobody sets it
console = Console(stderr=True, highlight=False)


def name_of(robot: str) -> str:
    """Return the robot's name in the register: hall-1/r1 -> hall-1-r1."""
    return robot.replace("/", "-")


def site_of(robot: str) -> str:
    """Return hall-1 of hall-1/r1."""
    return robot.partition("/")[0]


def read_status(out: Path, robot: str) -> dict[str, Any]:
    """Return what `edge-agent status --json` prints: the agent's status file."""
    path = out / "robots" / name_of(robot) / "state" / "status.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def reported(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an agent's status file says of its costs, as a row of summary.json has it."""
    rounds, publishes = status["rounds"], status["publishes"]
    up = [one.get("bytes_up", 0) for one in rounds]
    return {
        "examples": rounds[-1]["num_examples"] if rounds else 0,
        "active_version": status["active_version"],
        "idle_mb": round(status["idle_mb"], 1),
        "peak_rss_mb": round(status["peak_mb"], 1),  # summed PSS of the agent's process tree
        "bytes_up_per_round": round(sum(up) / len(up)) if up else 0,
        "bytes_down_first": publishes[0]["bytes_down"],
        "bytes_down_per_publish": publishes[-1]["bytes_down"],
        "framework_loaded": status["framework_loaded"],
    }


def versions() -> dict[str, str]:
    """Return what has run, and when."""
    return {
        "fleetlearn": version("fleetlearn"),
        "flwr": version("flwr"),
        "python": sys.version.split()[0],
        "date": date.today().isoformat(),
    }


@dataclass
class Demo:
    """Paths, robots, running processes, and the commands typed so far."""

    out: Path
    rounds: int
    training: tuple[str, ...]  # site/robot
    unseen: tuple[str, ...]  # never train
    commands: list[str] = field(default_factory=list)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    port: int = 0  # of the server

    @property
    def robots(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.training, *self.unseen)

    @property
    def server(self) -> Path:
        """The server directory."""
        return self.out / "server"

    def config(self, robot: str) -> Path:
        """The robot's agent.toml."""
        return self.out / "robots" / name_of(robot) / "agent.toml"

    def recording(self, robot: str) -> Path:
        """What the robot has recorded."""
        return self.out / "bags" / robot

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Begin with an empty folder; leave no process behind."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            yield
        finally:
            for process in self.processes.values():
                process.kill()

    def type(self, *command: object, show: bool = True) -> str:
        """Run a command as a person would and return what it prints; its errors end the demo.

        What it says on the way goes to the terminal, unless the command itself is not shown.
        """
        self._show(command, show)
        done = subprocess.run(
            _arguments(command),
            env=_environment(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            console.print(done.stderr or "", markup=False)
            raise SystemExit(f"demo: {command[0]} ended with exit code {done.returncode}")
        if show and "--json" not in command:
            console.print(done.stdout, markup=False, end="", soft_wrap=True)
        return done.stdout

    def announce(self, *command: object) -> None:
        """Print a command that is run beside others without being shown."""
        self._show(command, True)

    @contextmanager
    def meanwhile(self, *command: object) -> Iterator[None]:
        """Run a command beside what the block does; its errors end the demo."""
        self._show((*command, "&"), True)
        with subprocess.Popen(_arguments(command), env=_environment(), cwd=ROOT) as process:
            try:
                yield
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise SystemExit(f"demo: {command[0]} ended with exit code {process.returncode}")

    def background(self, log: str, *command: object, show: bool = True) -> None:
        """Start a service; its log goes to a file."""
        self._show((*command, "&"), show)
        path = self.out / "logs" / f"{log}.log"
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as stream:
            self.processes[log] = subprocess.Popen(
                _arguments(command), env=_environment(), cwd=ROOT, stderr=stream, stdout=stream
            )

    def wait(self, what: str, done: Callable[[], bool]) -> None:
        """Wait for a condition; fail with the logs if a service has ended."""
        end = time.monotonic() + PATIENCE_S
        while not done():
            for log, process in self.processes.items():
                if process.poll() is not None:
                    tail = (self.out / "logs" / f"{log}.log").read_text()[-2000:]
                    raise SystemExit(f"demo: {log} ended while waiting for {what}:\n{tail}")
            if time.monotonic() > end:
                raise SystemExit(f"demo: {what} did not happen within {PATIENCE_S:.0f} s")
            time.sleep(0.2)

    def stop(self) -> dict[str, int]:
        """End every service as systemd would; return the exit codes."""
        for process in reversed(self.processes.values()):
            process.terminate()
        codes = {log: process.wait(30) for log, process in self.processes.items()}
        self.processes.clear()
        return codes

    def show_console(self) -> None:
        """Print a link to the fleet's pages; it works once, for five minutes."""
        self.type("cloud-server", "web", self.server)

    def keep(self) -> dict[str, int]:
        """Leave the fleet at work until Ctrl-C, or SIGTERM; end it, return the exit codes."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self.show_console()
        console.print("The fleet goes on until Ctrl-C. Another link: the last command once more.")
        with suppress(KeyboardInterrupt):
            self._watch()
        return self.stop()

    def _watch(self) -> None:
        """Return when a service has ended by itself."""
        while all(process.poll() is None for process in self.processes.values()):
            time.sleep(0.5)
        console.print("a service has ended")

    def init(self, *options: object) -> None:
        """Make the server directory."""
        self.port = _free_port()
        self.type("cloud-server", "init", self.server, *options, "--port", self.port)

    def start_fleet(self, settings: tuple[str, ...] = ()) -> None:
        """Admit all robots, start all of it, until every robot runs version 0.

        Args:
            settings: of the server, as environment variables: NAME=VALUE.
        """
        start = ("cloud-server", "start", self.server)
        self.background("server", *(("env", *settings) if settings else ()), *start)
        shown = (self.training[0], self.unseen[0])
        with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1)) as pool:
            others = pool.map(self._enroll, [one for one in self.robots if one not in shown])
            for robot in shown:  # what they print shows what the others do meanwhile
                self._enroll(robot)
            list(others)
        self.wait("the server's start", lambda: _listening(self.port))
        for robot in self.robots:
            agent = ("env", PROBATION, "edge-agent", "run", "--config", self.config(robot))
            self.background(name_of(robot), *agent, show=robot == self.training[0])
        console.print(f"[dim]... and the same on the other {len(self.robots) - 1} robots[/]")
        self.wait_for_version(0)

    def train(self) -> dict[str, Any]:
        """Train, wait until every robot runs what was published, return what the command prints."""
        trained: dict[str, Any] = json.loads(
            self.type("cloud-server", "train", self.server, "--rounds", self.rounds, "--json")
        )
        self.wait_for_version(trained["published_version"])
        self.type("cloud-server", "models", "list", self.server)
        return trained

    def wait_for_version(self, version: int) -> None:
        """Wait until every agent says that this version is active."""
        self.wait(
            f"version {version} on every robot",
            lambda: all(self.status(r).get("active_version") == version for r in self.robots),
        )

    def wait_for_verdict(self, version: int) -> None:
        """Wait until every agent has made up its mind about this version."""

        def all_tried() -> bool:
            trials = [self.status(robot).get("trial") or {} for robot in self.robots]
            return all(t.get("version") == version and t["state"] != "probation" for t in trials)

        self.wait(f"a verdict of every robot on version {version}", all_tried)

    def status(self, robot: str) -> dict[str, Any]:
        """See `read_status`."""
        return read_status(self.out, robot)

    def signatures(self) -> list[dict[str, Any]]:
        """Return who signed what, as `cloud-server models list --json` prints it."""
        listed = json.loads(
            self.type("cloud-server", "models", "list", self.server, "--json", show=False)
        )
        return [one for version in listed["versions"] for one in version["signatures"]]

    def _enroll(self, robot: str) -> None:
        """Make a robot's key and settings, then admit the key on the server."""
        name, first = name_of(robot), robot in (self.training[0], self.unseen[0])
        role = () if robot in self.training else ("--no-train",)
        directory = self.config(robot).parent
        self.type(
            "edge-agent", "enroll", self.server / "kit", "--dir", directory,
            "--examples", self.recording(robot), *role, show=first,
        )  # fmt: skip
        self.type(
            "cloud-server", "robots", "add", self.server, name, "--site", site_of(robot),
            "--key", directory / "robot.pub", show=first,
        )  # fmt: skip

    def _show(self, command: tuple[object, ...], show: bool) -> None:
        text = " ".join(shlex.quote(str(part)) if part != "&" else "&" for part in command)
        text = text.replace(f"{ROOT}/", "")
        if show:
            self.commands.append(text)
            console.print(f"[bold cyan]$[/] {text}", soft_wrap=True)


def conclude(
    results: Mapping[str, bool], seconds: float, report: Path, codes: Mapping[str, int]
) -> None:
    """Print what holds and where to look; raises SystemExit if anything does not hold."""
    for text, holds in results.items():
        console.print(f"[{'green' if holds else 'red'}]{'ok  ' if holds else 'FAIL'}[/] {text}")
    console.print(f"{seconds:.0f} s; look at {_short(report)}")
    if not all(results.values()):
        raise SystemExit(f"demo: a check failed (exit codes {codes})")


def write_result(out: Path, data: Mapping[str, Any]) -> None:
    """Write summary.json, and result.json with everything that the report shows."""
    (out / "summary.json").write_text(json.dumps(data["summary"], indent=1) + "\n")
    (out / "result.json").write_text(json.dumps(data, indent=1) + "\n")


def _free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listening(port: int) -> bool:
    """Return whether the server answers."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _arguments(command: tuple[object, ...]) -> list[str]:
    return [sys.executable if part == "python" else str(part) for part in command]


def _environment() -> dict[str, str]:
    """Find the commands that were installed beside this interpreter."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}


def _short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
