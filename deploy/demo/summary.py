"""What the demo measured: summary.json, the table, the checks. No number comes from elsewhere."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from real_fleet import name_of, read_status, reported, site_of, versions
from rich.table import Table

from cloud_server.report.markup import decimal
from fleet_model.protocol.trial import CONFIRMED, REFUSED, TrialOutcome

TRAINING = ("hall-1/r1", "hall-1/r2", "hall-2/r1", "hall-2/r2")
UNSEEN = ("hall-1/r3", "hall-2/r3", "hall-3/r1")  # never train; hall-3 has walls of its own
ROBOTS = (*TRAINING, *UNSEEN)
LABELS = ("circle", "square", "star", "triangle")
SEED = 2  # of the bags; docs/benchmarks.md says what ten seeds gave


@dataclass(frozen=True)
class Measured:
    """JSON that the processes printed."""

    run: dict[str, Any]  # cloud-server train --json
    before: dict[str, Any]  # unseen robot -> edge-agent predict --json
    after: dict[str, Any]
    alone: dict[str, Any]  # single_robot.py
    trials: dict[str, list[dict[str, Any]]]  # robot -> of the published and of the planted version
    planted: int  # version of bad_model.py
    signatures: list[dict[str, Any]] = field(default_factory=list)  # of models list --json


def collect(out: Path, measured: Measured, commands: list[str], seconds: float) -> dict[str, Any]:
    """Return everything the report shows; its "summary" is summary.json."""
    unseen = [name_of(robot) for robot in UNSEEN]
    alone, before, after = measured.alone, measured.before, measured.after
    singles = [score for scores in alone["single_robot"].values() for score in scores.values()]
    summary = {
        "rounds": measured.run["rounds"],
        "seconds": round(seconds, 1),
        "robots": [_robot(out, robot, measured) for robot in ROBOTS],
        "unseen": {
            "robots": unseen,
            "accuracy_before": mean(before[name]["summary"]["accuracy"] for name in unseen),
            "accuracy_after": mean(after[name]["summary"]["accuracy"] for name in unseen),
            "single_robot_mean": mean(singles),
        },
        "published_version": measured.run["published_version"],
        "planted_version": measured.planted,
        "signatures": measured.signatures,
    }
    return {
        "summary": summary,
        "history": measured.run["closed"],
        "labels": list(LABELS),
        "label_counts": alone["label_counts"],
        "predictions": {name: {"before": before[name], "after": after[name]} for name in unseen},
        "single_robot": alone["single_robot"],
        "frame_bytes": {name_of(robot): _bag_bytes(out / "bags" / robot) for robot in ROBOTS},
        "commands": commands,
        "about": {
            **versions(),
            "seed": SEED,
            **alone["workload"],
        },
    }


def _robot(out: Path, robot: str, measured: Measured) -> dict[str, Any]:
    """Return one row: the agent's own status file, and accuracies.

    A robot that trains is measured on its held-out frames, which it never trained on; one that does
    not, on all of its frames.
    """
    name = name_of(robot)
    if robot in TRAINING:
        accuracy = measured.alone["held_out"][name]
    else:
        moments = {"before": measured.before, "after": measured.after}
        accuracy = {key: value[name]["summary"]["accuracy"] for key, value in moments.items()}
    return {
        "name": name,
        "site": site_of(robot),
        "trains": robot in TRAINING,
        "accuracy_before": accuracy["before"],
        "accuracy_after": accuracy["after"],
        **reported(read_status(out, robot)),
        "trials": measured.trials[robot],
    }


def table(summary: dict[str, Any]) -> Table:
    """Return the table at the end of the demo."""
    unseen = summary["unseen"]
    caption = (
        f"robots that never trained: {unseen['accuracy_before']:.3f} -> "
        f"[bold green]{unseen['accuracy_after']:.3f}[/]; models of one robot alone: "
        f"{unseen['single_robot_mean']:.3f}"
    )
    columns = "robot", "trains on", "accuracy", "version", "MB", "up", "publish"
    grid = Table(*columns, title="seven robots, one model", caption=caption)
    for r in summary["robots"]:
        grid.add_row(
            r["name"],
            f"{r['examples']} frames" if r["trains"] else "-",
            f"{r['accuracy_before']:.2f} -> {r['accuracy_after']:.2f}",
            str(r["active_version"]),
            f"{r['idle_mb']:.0f}-{r['peak_rss_mb']:.0f}",
            f"{r['bytes_up_per_round'] / 1e3:.1f} kB" if r["trains"] else "-",
            f"{r['bytes_down_per_publish'] / 1e3:.1f} kB",
        )
    return grid


def trials_table(summary: dict[str, Any]) -> Table:
    """Return what each robot made of the published and of the planted version."""
    versions = summary["published_version"], summary["planted_version"]
    columns = "robot", "runs", f"version {versions[0]}", f"version {versions[1]}, planted"
    grid = Table(*columns, title="what robots say by their own held-out frames")
    for r in summary["robots"]:
        tried = [TrialOutcome.model_validate(trial) for trial in r["trials"]]
        told = [f"{t.short}, {decimal(t.before, 2)} -> {decimal(t.after, 2)}" for t in tried]
        grid.add_row(r["name"], str(r["active_version"]), *told)
    return grid


def checks(summary: dict[str, Any], exit_codes: dict[str, int]) -> dict[str, bool]:
    """Return what has to hold at the end of the demo, and whether it does."""
    robots, unseen = summary["robots"], summary["unseen"]
    versions = {robot["active_version"] for robot in robots}
    gain = unseen["accuracy_after"] - unseen["single_robot_mean"]
    verdicts = {
        tuple((t["version"], t["state"], t.get("why", "")) for t in robot["trials"])
        for robot in robots
    }
    wanted = (
        (summary["published_version"], CONFIRMED, ""),
        (summary["planted_version"], REFUSED, "worse"),
    )

    def highest(key: str) -> float:
        return max(robot[key] for robot in robots)

    return {
        "every robot runs the published version": versions == {summary["published_version"]},
        "every robot confirmed it, and refused a planted bad one by its own frames": verdicts
        == {wanted},
        "robots that never trained: accuracy at least 0.85": unseen["accuracy_after"] >= 0.85,
        "the fleet's model beats models of one robot by at least 0.15": gain >= 0.15,
        "an update takes at most 60 kB": highest("bytes_up_per_round") <= 60_000,
        "after the first, a publish costs a robot at most 200 kB": highest("bytes_down_per_publish")
        <= 200_000,
        "an agent idles at 140 MB at most": highest("idle_mb") <= 140,
        "and peaks at 320 MB at most": highest("peak_rss_mb") <= 320,
        "no agent has loaded TensorFlow": not any(r["framework_loaded"] for r in robots),
        "every service ended with exit code 0": set(exit_codes.values()) == {0},
    }


def mean(values: Iterable[float]) -> float:
    """Return the mean, rounded for the summary."""
    numbers = list(values)
    return round(sum(numbers) / len(numbers), 4)


def _bag_bytes(bag: Path) -> int:
    """Return what would have to be sent if frames left the robot."""
    return sum(path.stat().st_size for path in bag.rglob("*") if path.is_file())
