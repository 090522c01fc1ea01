"""Boxes on one machine: seven robots learn where toys are, in rendered rooms; real processes.

Four robots on two sites train, three on other sites never do. Runs what a person would type and
prints it. Writes build/demo-detection/summary.json and report.html; the exit status is 0 only if
every check at the end holds.

    python deploy/demo/detection.py [--out build/demo-detection] [--rounds 6] [--keep]
"""

import argparse
import json
import time
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from detection_report import write_report
from detection_summary import SEED, SIZE, Measured, checks, collect, table
from real_fleet import ROOT, Demo, conclude, console, name_of, write_result

from benchmarks.environments import environment
from benchmarks.rendered_scenes import LABELS
from benchmarks.scenes.data_set import TRAINING, UNSEEN

FRAMES, UNSEEN_FRAMES = 100, 40  # of a robot
EPOCHS = 3  # of a round
SETTINGS = (f"FLEETLEARN_TRAINING__EPOCHS={EPOCHS}", "FLEETLEARN_ROUNDS__COMPRESSION=int8")


class DetectionDemo(Demo):
    """Its robots have data sets, named as in the register."""

    def recording(self, robot: str) -> Path:
        """What the robot has seen, with boxes."""
        return self.out / "scenes" / name_of(robot)


def main() -> None:
    """Run the loop, write summary and report, check."""
    parser = argparse.ArgumentParser(description="Let a fleet on this machine learn boxes.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo-detection")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--keep", action="store_true", help="leave the fleet at work until Ctrl-C")
    arguments = parser.parse_args()
    environment("scenes")  # installing counts apart, as that of .venv
    begin = time.monotonic()
    demo = DetectionDemo(arguments.out.absolute(), arguments.rounds, TRAINING, UNSEEN)
    with demo.playing():
        measured = run(demo)
        codes = {} if arguments.keep else demo.stop()
        data = collect(demo, measured, time.monotonic() - begin)
        write_result(demo.out, data)
        write_report(data, demo.out / "frames", demo.out / "report.html")
        console.print(table(data["summary"]))
        if arguments.keep:
            codes = demo.keep()
    results = checks(data["summary"], codes)
    conclude(results, data["summary"]["seconds"], demo.out / "report.html", codes)


def run(demo: Demo) -> Measured:
    """Render, serve, enroll, train, predict; return what was printed."""
    console.rule("seven robots drive through rendered rooms; meanwhile a server is made")
    with demo.meanwhile(  # nice: making the server takes one core for longer
        "nice", "python", "-m", "benchmarks.rendered_fleet", demo.out / "scenes",
        "--frames", FRAMES, "--unseen-frames", UNSEEN_FRAMES, "--seed", SEED,
    ):  # fmt: skip
        demo.init(
            "--workload", "object-detector", "--labels", ",".join(LABELS), "--image-size", SIZE
        )
    console.rule("the server and its robots start")
    demo.start_fleet(SETTINGS)
    with ThreadPoolExecutor() as pool:
        console.rule("before: the first model on robots that never train, while the others begin")
        first = asked(demo, "before", pool)
        console.rule(f"{demo.rounds} federated rounds")
        trained = demo.train()
        before = answered(first, 0)
        console.rule("after: the same robots, the new model")
        signatures = pool.submit(demo.signatures)
        after = answered(asked(demo, "after", pool), trained["published_version"])
    demo.wait_for_verdict(trained["published_version"])
    demo.type("cloud-server", "status", demo.server)
    statuses = {robot: demo.status(robot) for robot in demo.robots}
    return Measured(trained, before, after, statuses, signatures.result())


def asked(demo: Demo, moment: str, pool: Executor) -> dict[str, Future[str]]:
    """Begin to run the active model over all frames of the unseen robots, and to draw its boxes."""
    commands = {
        name_of(robot): (
            "edge-agent", "predict", demo.recording(robot), "--config", demo.config(robot),
            "--annotate", demo.out / "frames" / moment / name_of(robot), "--json",
        )
        for robot in demo.unseen
    }  # fmt: skip
    demo.announce(*commands[name_of(demo.unseen[0])])
    return {name: pool.submit(demo.type, *one, show=False) for name, one in commands.items()}


def answered(asked: Mapping[str, Future[str]], version: int) -> dict[str, Any]:
    """Return what was printed; it ends the demo if another version than this one has answered."""
    answers = {name: json.loads(one.result()) for name, one in asked.items()}
    for name, found in answers.items():
        summary = found["summary"]
        if summary["model_version"] != version:
            raise SystemExit(f"demo: {name} ran version {summary['model_version']}, not {version}")
        console.print(f"  {name}: map50 {summary['measures']['map50']:.3f}")
    return answers


if __name__ == "__main__":
    main()
