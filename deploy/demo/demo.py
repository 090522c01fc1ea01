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
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))  # report and single_robot lie beside this file

from report import write_report  # noqa: E402

TRAINING = ("hall-1/r1", "hall-1/r2", "hall-2/r1", "hall-2/r2")
UNSEEN = ("hall-1/r3", "hall-2/r3", "hall-3/r1")  # never train; hall-3 has walls of its own
LABELS = ("circle", "square", "star", "triangle")
FRAMES, SEED = 240, 2
IMAGE_SIZE = 128
PATIENCE_S = 120.0  # for anything that should happen within seconds
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
        return self.out / "server"

    def config(self, robot: str) -> Path:
        return self.out / "robots" / name_of(robot) / "agent.toml"

    def bag(self, robot: str) -> Path:
        return self.out / "bags" / robot

    def type(self, *command: object, show: bool = True) -> str:
        """Run a command as a person would and return what it prints; its errors end the demo."""
        self._show(command, show)
        done = subprocess.run(
            _arguments(command), env=_environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise SystemExit(f"demo: {command[0]} ended with exit code {done.returncode}")
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
        data = run(demo)
        codes = demo.stop()
    finally:
        for process in demo.processes.values():
            process.kill()
    data["summary"]["seconds"] = round(time.monotonic() - begin, 1)
    (demo.out / "summary.json").write_text(json.dumps(data["summary"], indent=1) + "\n")
    (demo.out / "result.json").write_text(json.dumps(data, indent=1) + "\n")
    write_report(data, demo.out / "frames", demo.out / "report.html")
    show(data["summary"])
    check(data["summary"], codes)
    console.print(f"summary {_short(demo.out / 'summary.json')}")
    console.print(f"report  {_short(demo.out / 'report.html')}")


def run(demo: Demo) -> dict[str, Any]:
    """Generate, serve, enroll, train, predict; return everything the report shows."""
    console.rule("seven robots record their bags")
    generate(demo)
    console.rule("a server, and its robots")
    port = free_port()
    demo.type(
        "cloud-server", "init", demo.server, "--workload", "image-classifier",
        "--labels", ",".join(LABELS), "--port", port,
    )  # fmt: skip
    demo.background("server", "cloud-server", "start", demo.server)
    for robot in (*TRAINING, *UNSEEN):
        enroll(demo, robot)
    demo.wait("the server's start", lambda: listening(port))
    for robot in (*TRAINING, *UNSEEN):
        agent = ("edge-agent", "run", "--config", demo.config(robot))
        demo.background(name_of(robot), *agent, show=robot == TRAINING[0])
    console.print(f"[dim]... and the same on the other {len(TRAINING + UNSEEN) - 1} robots[/]")
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
    return collect(demo, trained, before, after, alone)


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
    role = ("--examples", demo.bag(robot)) if robot in TRAINING else ("--no-train",)
    directory = demo.config(robot).parent
    demo.type("edge-agent", "enroll", demo.server / "kit", "--dir", directory, *role, show=first)
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


def collect(
    demo: Demo, trained: dict[str, Any], before: Any, after: Any, alone: dict[str, Any]
) -> dict[str, Any]:
    """Bring everything together; every number was measured by the processes themselves."""
    robots = [robot_summary(demo, r, before, after, alone) for r in (*TRAINING, *UNSEEN)]
    unseen = [name_of(robot) for robot in UNSEEN]
    singles = [score for scores in alone["single_robot"].values() for score in scores.values()]
    summary = {
        "rounds": demo.rounds,
        "seconds": 0.0,
        "robots": robots,
        "unseen": {
            "robots": unseen,
            "accuracy_before": mean(before[n]["summary"]["accuracy"] for n in unseen),
            "accuracy_after": mean(after[n]["summary"]["accuracy"] for n in unseen),
            "single_robot_mean": mean(singles),
        },
        "published_version": trained["published_version"],
    }
    return {
        "summary": summary,
        "history": trained["closed"],
        "labels": list(LABELS),
        "label_counts": alone["label_counts"],
        "predictions": {n: {"before": before[n], "after": after[n]} for n in unseen},
        "single_robot": alone["single_robot"],
        "frame_bytes": {name_of(r): bag_bytes(demo.bag(r)) for r in (*TRAINING, *UNSEEN)},
        "commands": demo.commands,
        "about": {
            "fleetlearn": version("fleetlearn"),
            "flwr": version("flwr"),
            "python": sys.version.split()[0],
            "seed": SEED,
            "date": date.today().isoformat(),
            "backbone": "efficientnet-lite0",
            "image_size": IMAGE_SIZE,
        },
    }


def robot_summary(
    demo: Demo, robot: str, before: Any, after: Any, alone: dict[str, Any]
) -> dict[str, Any]:
    """Return one row of summary.json: the agent's own status file, and accuracies."""
    name = name_of(robot)
    status = read_status(demo, robot)
    trains, rounds = robot in TRAINING, status["rounds"]
    held_out = alone["held_out"].get(name, {})  # of a training robot: frames never trained on
    return {
        "name": name,
        "site": site_of(robot),
        "trains": trains,
        "examples": rounds[-1]["num_examples"] if rounds else 0,
        "accuracy_before": held_out.get("before", before.get(name, {}).get("summary", {}).get("accuracy")),
        "accuracy_after": held_out.get("after", after.get(name, {}).get("summary", {}).get("accuracy")),
        "active_version": status["active_version"],
        "idle_mb": round(status["idle_mb"], 1),
        "peak_rss_mb": round(status["peak_mb"], 1),  # summed PSS of the process tree
        "bytes_up_per_round": round(mean(r["bytes_up"] for r in rounds)) if rounds else 0,
        "bytes_down_per_publish": status["publishes"][-1]["bytes_down"],
        "bytes_down_first": status["publishes"][0]["bytes_down"],
        "tensorflow_loaded": status["tensorflow_loaded"],
    }


def show(summary: dict[str, Any]) -> None:
    """Print the table."""
    columns = "robot", "site", "examples", "accuracy", "version", "idle/peak MB", "up/round", "publish"
    table = Table(*columns, title="seven robots, one model")
    for r in summary["robots"]:
        table.add_row(
            r["name"], r["site"], str(r["examples"] or "-"),
            f"{r['accuracy_before']:.2f} -> {r['accuracy_after']:.2f}", str(r["active_version"]),
            f"{r['idle_mb']:.0f} / {r['peak_rss_mb']:.0f}",
            f"{r['bytes_up_per_round'] / 1e3:.1f} kB" if r["trains"] else "-",
            f"{r['bytes_down_per_publish'] / 1e3:.1f} kB",
        )  # fmt: skip
    console.print(table)
    unseen = summary["unseen"]
    console.print(
        f"robots never seen in training: {unseen['accuracy_before']:.3f} -> "
        f"[bold green]{unseen['accuracy_after']:.3f}[/]; trained on one robot alone: "
        f"{unseen['single_robot_mean']:.3f}"
    )


def check(summary: dict[str, Any], codes: dict[str, int]) -> None:
    """End with exit status 1, naming what does not hold."""
    robots, unseen = summary["robots"], summary["unseen"]
    wanted = summary["published_version"]
    checks = {
        "every robot runs the published version": {r["active_version"] for r in robots} == {wanted},
        "no agent has loaded TensorFlow": not any(r["tensorflow_loaded"] for r in robots),
        "the fleet beats robots that train alone": unseen["accuracy_after"]
        > unseen["single_robot_mean"],
        "every service ended cleanly": set(codes.values()) == {0},
    }
    for text, holds in checks.items():
        console.print(f"[{'green' if holds else 'red'}]{'ok  ' if holds else 'FAIL'}[/] {text}")
    if not all(checks.values()):
        raise SystemExit(f"demo: a check failed (exit codes {codes})")


def all_run(demo: Demo, wanted: int) -> bool:
    """Return whether every agent says that this version is active."""
    return all(
        read_status(demo, robot).get("active_version") == wanted for robot in (*TRAINING, *UNSEEN)
    )


def read_status(demo: Demo, robot: str) -> dict[str, Any]:
    """Return what `edge-agent status --json` prints: the agent's status file."""
    path = demo.config(robot).parent / "state" / "status.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def name_of(robot: str) -> str:
    """Return the robot's name in the register: hall-1/r1 -> hall-1-r1."""
    return robot.replace("/", "-")


def site_of(robot: str) -> str:
    """Return hall-1 of hall-1/r1."""
    return robot.partition("/")[0]


def bag_bytes(bag: Path) -> int:
    """Return what would have to be sent if frames left the robot."""
    return sum(path.stat().st_size for path in bag.rglob("*") if path.is_file())


def mean(values: Any) -> float:
    """Return the mean, rounded for the summary."""
    numbers = [float(value) for value in values]
    return round(sum(numbers) / len(numbers), 4)


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
