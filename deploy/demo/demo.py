"""The whole loop on one machine: seven robots, one server, real processes, real bags.

Runs what a person would type and prints it. Writes build/demo/summary.json and report.html; the
exit status is 0 only if every check at the end holds.

    python deploy/demo/demo.py [--out build/demo] [--rounds 5] [--keep]
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from real_fleet import ROOT, Demo, conclude, console, name_of, write_result
from report import write_report
from summary import (
    LABELS,
    SEED,
    TRAINING,
    UNSEEN,
    Measured,
    checks,
    collect,
    table,
    trials_table,
)

HERE = Path(__file__).resolve().parent
FRAMES = 240  # per robot: two minutes at 2 Hz


def main() -> None:
    """Run the loop, write summary and report, check."""
    parser = argparse.ArgumentParser(description="Run the whole loop on this machine.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="leave the fleet at work until Ctrl-C")
    arguments = parser.parse_args()
    begin = time.monotonic()
    demo = Demo(arguments.out.absolute(), arguments.rounds, TRAINING, UNSEEN)
    with demo.playing():
        measured = run(demo)
        codes = {} if arguments.keep else demo.stop()
        data = collect(demo.out, measured, demo.commands, time.monotonic() - begin)
        write_result(demo.out, data)
        write_report(data, demo.out / "frames", demo.out / "report.html")
        console.print(table(data["summary"]))
        console.print(trials_table(data["summary"]))
        if arguments.keep:
            codes = demo.keep()
    results = checks(data["summary"], codes)
    conclude(results, data["summary"]["seconds"], demo.out / "report.html", codes)


def run(demo: Demo) -> Measured:
    """Generate, serve, enroll, train, predict, publish a bad model; return what was printed."""
    console.rule("seven robots record their bags")
    generate(demo)
    console.rule("a server, and its robots")
    demo.init("--workload", "image-classifier", "--labels", ",".join(LABELS))
    demo.start_fleet()
    demo.show_console()

    console.rule("before: the first model on robots that never train")
    before = predict(demo, "before")
    console.rule(f"{demo.rounds} federated rounds")
    trained = demo.train()
    published = trained["published_version"]

    console.rule("after: the same robots, the new model")
    after = predict(demo, "after")
    console.rule("for comparison: each robot alone, same steps, same split")
    alone = json.loads(demo.type(
        sys.executable, HERE / "single_robot.py", demo.out, "--rounds", demo.rounds,
        "--training", ",".join(TRAINING), "--unseen", ",".join(UNSEEN), show=False,
    ))  # fmt: skip
    console.rule("somebody publishes a bad model: its labels are in another order")
    demo.wait_for_verdict(published)
    trials = {robot: [demo.status(robot)["trial"]] for robot in demo.robots}
    planted = int(demo.type("python", HERE / "bad_model.py", demo.server))
    demo.type("cloud-server", "models", "publish", demo.server, planted)
    demo.wait_for_verdict(planted)
    for robot, tried in trials.items():
        tried.append(demo.status(robot)["trial"])
    demo.type("cloud-server", "status", demo.server)
    return Measured(trained, before, after, alone, trials, planted, demo.signatures())


def generate(demo: Demo) -> None:
    """Write one bag a robot; the unseen ones meet every label equally often."""
    script = ROOT / "datasets" / "robot_camera.py"
    for robots, prior in ((TRAINING, "dirichlet"), (UNSEEN, "uniform")):
        demo.type(
            "python", script, demo.out / "bags", "--robots", ",".join(robots), "--frames", FRAMES,
            "--seed", SEED, "--prior", prior,
        )  # fmt: skip


def predict(demo: Demo, moment: str) -> dict[str, Any]:
    """Run the active model over the unseen robots' own bags."""
    answers = {}
    for robot in UNSEEN:
        name = name_of(robot)
        extra = ("--annotate", demo.out / "frames" / name) if moment == "after" else ()
        answers[name] = json.loads(demo.type(
            "edge-agent", "predict", demo.recording(robot), "--config", demo.config(robot),
            "--label-topic", "/camera/label", *extra, "--json", show=robot == UNSEEN[0],
        ))  # fmt: skip
        accuracy = answers[name]["summary"]["accuracy"]
        console.print(f"  {name}: accuracy {accuracy:.3f}")
    return answers


if __name__ == "__main__":
    main()
