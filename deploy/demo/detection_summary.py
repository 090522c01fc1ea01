"""What the demo of boxes measured: summary.json, the table, the checks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_fleet import Demo, name_of, reported, site_of, versions
from rich.table import Table

from edge_agent.data.manifest import MANIFEST, boxes_of, read_table
from fleet_model.protocol.trial import CONFIRMED

SEED, SIZE = 1, 256  # of the scenes; pixels of the square that a frame is fitted into
LEAST, GAIN = 0.12, 0.10  # map50 of unseen robots: at the end, and more than at the beginning


@dataclass(frozen=True)
class Measured:
    """JSON that the processes printed."""

    run: dict[str, Any]  # cloud-server train --json
    before: dict[str, Any]  # unseen robot -> edge-agent predict --json
    after: dict[str, Any]
    statuses: dict[str, dict[str, Any]]  # robot -> edge-agent status --json, at the end
    signatures: list[dict[str, Any]]  # of models list --json


def collect(demo: Demo, measured: Measured, seconds: float) -> dict[str, Any]:
    """Return everything the report shows; its "summary" is summary.json."""
    unseen = [name_of(robot) for robot in demo.unseen]
    moments = {"before": measured.before, "after": measured.after}
    recordings = {name_of(robot): demo.recording(robot) for robot in demo.robots}
    return {
        "summary": {
            "rounds": measured.run["rounds"],
            "seconds": round(seconds, 1),
            "robots": [_robot(robot, demo, measured) for robot in demo.robots],
            "unseen": {
                "robots": unseen,
                **{
                    f"map50_{moment}": _mean(_map50(answers[name]) for name in unseen)
                    for moment, answers in moments.items()
                },
            },
            "classes": _classes(moments),
            "published_version": measured.run["published_version"],
            "signatures": measured.signatures,
        },
        "history": measured.run["closed"],
        "frames_with_boxes": {name: _stamps(recordings[name]) for name in unseen},
        "frame_bytes": {name: _image_bytes(place) for name, place in recordings.items()},
        "commands": demo.commands,
        "about": {
            **versions(),
            "seed": SEED,
            "image size": SIZE,
        },
    }


def _robot(robot: str, demo: Demo, measured: Measured) -> dict[str, Any]:
    """Return one row: the agent's own status file, and map50.

    A robot that never trains is measured on all of its frames, with the first and the published
    model. One that trains has measured the shared model on its held-out frames as each round began.
    """
    name, status = name_of(robot), measured.statuses[robot]
    if robot in demo.training:
        replies = [r for closed in measured.run["closed"] for r in closed["robots"]]
        own = [r["metrics"].get("map50_before") for r in replies if r["name"] == name]
        known = [value for value in own if value is not None] or [None]
        before, after = known[0], known[-1]
    else:
        before, after = _map50(measured.before[name]), _map50(measured.after[name])
    return {
        "name": name,
        "site": site_of(robot),
        "trains": robot in demo.training,
        "map50_before": before,
        "map50_after": after,
        **reported(status),
        "trials": [status["trial"]],
    }


def table(summary: dict[str, Any]) -> Table:
    """Return the table at the end of the demo."""
    unseen = summary["unseen"]
    caption = (
        f"robots that never trained, all frames: {unseen['map50_before']:.3f} -> "
        f"[bold green]{unseen['map50_after']:.3f}[/]; those that train, held-out frames: the "
        "shared model as the first and as the last round begins"
    )
    columns = "robot", "trains on", "map50", "version", "MB", "up"
    grid = Table(*columns, title="seven robots, one detector", caption=caption)
    for r in summary["robots"]:
        grid.add_row(
            r["name"],
            f"{r['examples']} frames" if r["trains"] else "-",
            " -> ".join("-" if v is None else f"{v:.2f}" for v in _both(r)),
            str(r["active_version"]),
            f"{r['idle_mb']:.0f}-{r['peak_rss_mb']:.0f}",
            f"{r['bytes_up_per_round'] / 1e3:.1f} kB" if r["trains"] else "-",
        )
    return grid


def checks(summary: dict[str, Any], exit_codes: Mapping[str, int]) -> dict[str, bool]:
    """Return what has to hold at the end of the demo, and whether it does."""
    robots, unseen, published = summary["robots"], summary["unseen"], summary["published_version"]
    trials = {(t["version"], t["state"]) for robot in robots for t in robot["trials"]}
    gain = unseen["map50_after"] - unseen["map50_before"]
    return {
        "every robot runs the published version": {r["active_version"] for r in robots}
        == {published},
        "every robot tried it on its own frames and confirmed it": trials
        == {(published, CONFIRMED)},
        f"robots that never trained: map50 at least {LEAST}": unseen["map50_after"] >= LEAST,
        f"that is at least {GAIN} more than before": gain >= GAIN,
        "an update takes at most 60 kB": max(r["bytes_up_per_round"] for r in robots) <= 60_000,
        "no agent has loaded TensorFlow": not any(r["framework_loaded"] for r in robots),
        "every service ended with exit code 0": set(exit_codes.values()) == {0},
    }


def _both(robot: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return robot["map50_before"], robot["map50_after"]


def _map50(answer: Mapping[str, Any]) -> float:
    return round(float(answer["summary"]["measures"]["map50"]), 4)


def _classes(moments: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return class -> true boxes, and average precision at .5, the mean of robots that meet it."""
    tables = {
        moment: [answer["summary"]["details"] for answer in answers.values()]
        for moment, answers in moments.items()
    }
    rows: dict[str, dict[str, Any]] = {}
    for label in tables["after"][0]:
        met = [each[label] for each in tables["after"] if each[label]["boxes"]]
        rows[label] = {"boxes": round(sum(row["boxes"] for row in met))}
        for moment, found in tables.items():
            known = [each[label]["ap50"] for each in found if each[label]["boxes"]]
            rows[label][f"ap50_{moment}"] = _mean(known) if known else None
    return rows


def _stamps(recording: Path) -> list[int]:
    """Return when the frames were taken in which something is to be found."""
    rows = read_table(recording / MANIFEST, ("stamp_ns", "boxes"))
    return [int(row["stamp_ns"]) for _, row in rows if boxes_of(row["boxes"])]


def _image_bytes(recording: Path) -> int:
    """Return what would have to be sent if frames left the robot."""
    return sum(path.stat().st_size for path in (recording / "images").iterdir())


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return round(sum(numbers) / len(numbers), 4)
