"""What pages say of runs: the list, one run with its rounds, curves with their spread."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from cloud_server.console.desk import Desk
from cloud_server.console.robots_view import scores
from cloud_server.monitoring.run_words import doubts, held_out, outcome_of_run
from cloud_server.report import charts
from cloud_server.report.markup import Html, percent
from cloud_server.runs.run_store import Run, brief
from cloud_server.state.clock import age
from cloud_server.state.words import clusters_in_words, privacy_in_words
from fleet_model.measures import AFTER, BEFORE, changes
from fleet_model.protocol.example_counts import counts_of, tell_left_out

TONES = {
    "finished": "good", "failed": "bad", "stopped": "away", "waiting": "waits",
    "running": "waits", "publishing": "waits",
}  # fmt: skip
CHARTS = 2  # measures that are drawn


def run_rows(desk: Desk) -> list[dict[str, Any]]:
    """Return a row for every run that is kept, the newest first."""
    known = desk.all_runs()
    several = len({run.channel for run, _ in known}) > 1
    return [_row(run, several, apart=apart) for run, apart in known]


def _row(run: Run, several: bool, *, apart: bool) -> dict[str, Any]:
    # What outcome_of_run reads; all of a run as JSON would cost a page of them most of its time.
    about = {
        "channel": run.channel,
        "kind": run.kind,
        "first_version": run.first_version,
        "published_version": run.published_version,
        "release": None if run.release is None else run.release.model_dump(),
    }
    return {
        "id": run.id,
        "kind": run.kind,
        "state": run.state,
        "tone": TONES[run.state],
        "apart": apart,
        "closed": f"{run.rounds_closed} of {run.rounds}",
        "outcome": outcome_of_run(about, channel=several),
        "seconds": f"{run.seconds:.0f} s",
        "began": when(run.started_at),
        "error": run.error,
    }


def when(unix_s: float) -> str:
    """Return a moment in UTC."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(unix_s))


def one_run(desk: Desk, run_id: str, wanted: str) -> dict[str, Any] | None:
    """Return all that is known of a run, and the robots of one of its rounds.

    Args:
        desk: of the server.
        run_id: as `runs list` shows it.
        wanted: number of the round whose robots are shown; "" or no number: the newest.
    """
    run = desk.run(run_id)
    if run is None:
        return None
    closed = run["closed"] if run["kind"] == "train" else []
    numbers = [record["round"] for record in closed]
    number = int(wanted) if wanted.isdigit() and int(wanted) in numbers else None
    number = numbers[-1] if number is None and numbers else number
    record = desk.round(run, number) if number is not None else run["measured"]
    told = [] if record is None else record.get("robots", [])
    release = run["release"] or {}
    return {
        "run": run,
        "active": run["state"] in ("waiting", "running", "publishing"),
        "tone": TONES[run["state"]],
        "about": _facts(run),
        "open": _open(run["open_round"]),
        "curves": curves(closed),
        "rounds": [_round(one) for one in reversed(closed)],
        "number": number,
        "robots": [_robot(one) for one in told],
        "doubts": [] if record is None else _doubts(desk, record),
        "error": desk.words(run["error"]),
        "withheld": release.get("version") if release.get("kind") == "withheld" else None,
        "reasons": [one["words"] for one in release.get("reasons") or ()],
    }


def _facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("State", f"{run['state']} (flwr run)" if run["apart"] else run["state"]),
        ("Rounds closed", f"{run['rounds_closed']} of {run['rounds']}"),
        ("Outcome", outcome_of_run(run)),
        ("Began", f"{when(run['started_at'])} UTC"),
        ("At work", f"{run['seconds']:.0f} s"),
        ("Channel", run["channel"] or "stable"),
        ("Begun by", "the schedule" if run["scheduled"] else "the operator"),
    ]


def _open(now: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if now is None:
        return None
    return {
        **now,
        "left": age(now["seconds_left"]),
        "since": age(now["seconds"]),
        "replied": [
            {"name": name, "kind": kind, "text": text}
            for name, kind, text in reversed(now["replies"])
        ],
    }


def _round(record: Mapping[str, Any]) -> dict[str, Any]:
    verdicts = brief(dict(record))["verdicts"]
    others = {kind: n for kind, n in verdicts.items() if kind != "accepted"}
    return {
        "round": record["round"],
        "version": record["version"],
        "accepted": verdicts.get("accepted", 0),
        "of": sum(verdicts.values()),
        "others": ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in others.items()),
        "seconds": f"{record['seconds']:.1f} s",
        "score": held_out(record),
        "held_out": record.get("held_out", 0),
        "left_out": tell_left_out(record.get("left_out", {})),
    }


def _robot(one: Mapping[str, Any]) -> dict[str, Any]:
    counts = counts_of(one["num_examples"], one["metrics"], one.get("label_counts"))
    kind = one["verdict"]
    return {
        "name": one["name"],
        "site": one["site"],
        "kind": kind,
        "tone": {"accepted": "good", "refused": "bad", "failed": "bad"}.get(kind, "waits"),
        "text": one["outcome"],
        "examples": one["num_examples"],
        "weight": one["weight"],
        "held_out": counts.held_out,
        "left_out": tell_left_out(counts.left_out),
        "scores": scores(one["metrics"]) or _measured(one["metrics"]),
    }


def _measured(metrics: Mapping[str, float]) -> str:
    names = sorted(name for name in metrics if name in ("accuracy", "loss", "macro_f1"))
    return ", ".join(f"{name} {metrics[name]:.3f}" for name in names)


def _doubts(desk: Desk, record: Mapping[str, Any]) -> list[str]:
    lines = doubts(record)
    if record.get("privacy"):
        lines.append(privacy_in_words(record["privacy"]))
    if record.get("clusters"):
        lines.append(f"models of sites, in {clusters_in_words(record['clusters'])}")
    return [desk.words(line) for line in (*lines, *record.get("site_notes", ()))]


def curves(closed: Sequence[Mapping[str, Any]]) -> list[tuple[str, Html]]:
    """Return (measure, chart) of closed rounds, oldest first: means, and how far robots are apart.

    Of each measure that robots tell before and after their training; accuracy comes first.
    """
    names = {name for record in closed for name in changes(record["metrics"])}
    order = sorted(names, key=lambda name: (name != "accuracy", name))[:CHARTS]
    return [(name, _curve(name, closed)) for name in order]


def _curve(name: str, closed: Sequence[Mapping[str, Any]]) -> Html:
    rounds = [str(record["round"]) for record in closed]
    bounds = [record.get("spread", {}).get(f"{name}{AFTER}") for record in closed]
    band = [None if one is None else (one[0], one[1]) for one in bounds]
    lines = [
        charts.Line(
            "after training", [one["metrics"].get(f"{name}{AFTER}") for one in closed], "s0"
        ),
        charts.Line("before", [one["metrics"].get(f"{name}{BEFORE}") for one in closed], "s1 d1"),
    ]
    title = f"{name} of rounds, mean and range over robots"
    if name.startswith("accuracy"):
        return charts.line_chart(title, rounds, lines, 1, percent, band)
    values = [value for line in lines for value in line.points if value is not None]
    top = charts.round_up(max([*values, *(one[1] for one in band if one)], default=1))
    return charts.line_chart(title, rounds, lines, top, "{:.2f}".format, band)
