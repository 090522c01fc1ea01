"""The whole loop on one machine: seven robots, one server, real processes, real bags.

Runs what a person would type and prints it. Writes build/demo/summary.json and report.html; the
exit status is 0 only if every check at the end holds.

    python deploy/demo/demo.py [--out build/demo] [--rounds 5]
"""

import argparse
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from report import write_report
from rich.console import Console
from summary import (
    LABELS,
    ROBOTS,
    SEED,
    TRAINING,
    UNSEEN,
    Measured,
    checks,
    collect,
    name_of,
    read_status,
    site_of,
    table,
    trials_table,
)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FRAMES = 240  # per robot: two minutes at 2 Hz
PATIENCE_S = 120.0  # for anything that should happen within seconds
PROBATION = "EDGE_AGENT_INSTALL__PROBATION_S=5"  # a minute, if nobody sets it
console = Console(stderr=True, highlight=False)


@dataclass
class Demo:
    """Paths, running processes, and the commands typed so far."""

    out: Path
    rounds: int
    commands: list[str] = field(default_factory=list)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def server(self) -> Path:
        """The server directory."""
        return self.out / "server"

    def config(self, robot: str) -> Path:
        """The robot's agent.toml."""
        return self.out / "robots" / name_of(robot) / "agent.toml"

    def bag(self, robot: str) -> Path:
        """What the robot has recorded."""
        return self.out / "bags" / robot

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

    def background(self, log: str, *command: object, show: bool = True) -> None:
        """Start a service; its log goes to a file."""
        self._show((*command, "&"), show)
        path = self.out / "logs" / f"{log}.log"
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as stream:
            self.processes[log] = subprocess.Popen(
                _arguments(command), env=_environment(), cwd=ROOT, stderr=stream, stdout=stream
            )

    def wait(self, what: str, done: Any) -> None:
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

    def _show(self, command: tuple[object, ...], show: bool) -> None:
        text = " ".join(shlex.quote(str(part)) if part != "&" else "&" for part in command)
        text = text.replace(f"{ROOT}/", "")
        if show:
            self.commands.append(text)
            console.print(f"[bold cyan]$[/] {text}", soft_wrap=True)


def main() -> None:
    """Run the loop, write summary and report, check."""
    parser = argparse.ArgumentParser(description="Run the whole loop on this machine.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    begin = time.monotonic()
    demo = Demo(out=arguments.out.absolute(), rounds=arguments.rounds)
    shutil.rmtree(demo.out, ignore_errors=True)
    demo.out.mkdir(parents=True)
    try:
        measured = run(demo)
        codes = demo.stop()
    finally:
        for process in demo.processes.values():
            process.kill()
    data = collect(demo.out, measured, demo.commands, time.monotonic() - begin)
    (demo.out / "summary.json").write_text(json.dumps(data["summary"], indent=1) + "\n")
    (demo.out / "result.json").write_text(json.dumps(data, indent=1) + "\n")
    write_report(data, demo.out / "frames", demo.out / "report.html")
    console.print(table(data["summary"]))
    console.print(trials_table(data["summary"]))
    results = checks(data["summary"], codes)
    for text, holds in results.items():
        console.print(f"[{'green' if holds else 'red'}]{'ok  ' if holds else 'FAIL'}[/] {text}")
    console.print(f"{data['summary']['seconds']:.0f} s; look at {_short(demo.out / 'report.html')}")
    if not all(results.values()):
        raise SystemExit(f"demo: a check failed (exit codes {codes})")


def run(demo: Demo) -> Measured:
    """Generate, serve, enroll, train, predict, publish a bad model; return what was printed."""
    console.rule("seven robots record their bags")
    generate(demo)
    console.rule("a server, and its robots")
    port = free_port()
    demo.type(
        "cloud-server", "init", demo.server, "--workload", "image-classifier",
        "--labels", ",".join(LABELS), "--port", port,
    )  # fmt: skip
    demo.background("server", "cloud-server", "start", demo.server)
    for robot in ROBOTS:
        enroll(demo, robot)
    demo.wait("the server's start", lambda: listening(port))
    for robot in ROBOTS:
        agent = ("env", PROBATION, "edge-agent", "run", "--config", demo.config(robot))
        demo.background(name_of(robot), *agent, show=robot == TRAINING[0])
    console.print(f"[dim]... and the same on the other {len(ROBOTS) - 1} robots[/]")
    demo.wait("version 0 on every robot", lambda: all_run(demo, 0))

    console.rule("before: the first model on robots that never train")
    before = predict(demo, "before")
    console.rule(f"{demo.rounds} federated rounds")
    trained = json.loads(
        demo.type("cloud-server", "train", demo.server, "--rounds", demo.rounds, "--json")
    )
    published = trained["published_version"]
    demo.wait(f"version {published} on every robot", lambda: all_run(demo, published))
    demo.type("cloud-server", "models", "list", demo.server)

    console.rule("after: the same robots, the new model")
    after = predict(demo, "after")
    console.rule("for comparison: each robot alone, same steps, same split")
    alone = json.loads(demo.type(
        sys.executable, HERE / "single_robot.py", demo.out, "--rounds", demo.rounds,
        "--training", ",".join(TRAINING), "--unseen", ",".join(UNSEEN), show=False,
    ))  # fmt: skip
    console.rule("somebody publishes a bad model: its labels are in another order")
    demo.wait(
        f"a verdict of every robot on version {published}", lambda: all_tried(demo, published)
    )
    trials = {robot: [read_status(demo.out, robot)["trial"]] for robot in ROBOTS}
    planted = int(demo.type("python", HERE / "bad_model.py", demo.server))
    demo.type("cloud-server", "models", "publish", demo.server, planted)
    demo.wait(f"a verdict of every robot on version {planted}", lambda: all_tried(demo, planted))
    for robot, tried in trials.items():
        tried.append(read_status(demo.out, robot)["trial"])
    demo.type("cloud-server", "status", demo.server)
    listed = json.loads(
        demo.type("cloud-server", "models", "list", demo.server, "--json", show=False)
    )
    signatures = [one for version in listed["versions"] for one in version["signatures"]]
    return Measured(trained, before, after, alone, trials, planted, signatures)


def generate(demo: Demo) -> None:
    """Write one bag a robot; the unseen ones meet every label equally often."""
    script = ROOT / "datasets" / "robot_camera.py"
    for robots, prior in ((TRAINING, "dirichlet"), (UNSEEN, "uniform")):
        demo.type(
            "python", script, demo.out / "bags", "--robots", ",".join(robots), "--frames", FRAMES,
            "--seed", SEED, "--prior", prior,
        )  # fmt: skip


def enroll(demo: Demo, robot: str) -> None:
    """Make a robot's key and settings, then admit the key on the server."""
    name, first = name_of(robot), robot in (TRAINING[0], UNSEEN[0])
    role = () if robot in TRAINING else ("--no-train",)
    directory = demo.config(robot).parent
    demo.type(
        "edge-agent", "enroll", demo.server / "kit", "--dir", directory,
        "--examples", demo.bag(robot), *role, show=first,
    )  # fmt: skip
    demo.type(
        "cloud-server", "robots", "add", demo.server, name, "--site", site_of(robot),
        "--key", directory / "robot.pub", show=first,
    )  # fmt: skip


def predict(demo: Demo, moment: str) -> dict[str, Any]:
    """Run the active model over the unseen robots' own bags."""
    answers = {}
    for robot in UNSEEN:
        name = name_of(robot)
        extra = ("--annotate", demo.out / "frames" / name) if moment == "after" else ()
        answers[name] = json.loads(demo.type(
            "edge-agent", "predict", demo.bag(robot), "--config", demo.config(robot),
            "--label-topic", "/camera/label", *extra, "--json", show=robot == UNSEEN[0],
        ))  # fmt: skip
        accuracy = answers[name]["summary"]["accuracy"]
        console.print(f"  {name}: accuracy {accuracy:.3f}")
    return answers


def all_run(demo: Demo, wanted: int) -> bool:
    """Return whether every agent says that this version is active."""
    return all(read_status(demo.out, robot).get("active_version") == wanted for robot in ROBOTS)


def all_tried(demo: Demo, version: int) -> bool:
    """Return whether every agent has made up its mind about this version."""
    trials = [read_status(demo.out, robot).get("trial") or {} for robot in ROBOTS]
    return all(t.get("version") == version and t["state"] != "probation" for t in trials)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
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


if __name__ == "__main__":
    main()
