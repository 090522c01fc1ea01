"""Runs, rounds, versions in few words, for tables and lines: in a terminal, in a browser."""

from collections.abc import Mapping
from typing import Any


def outcome_of_run(run: Mapping[str, Any], *, channel: bool = False) -> str:
    """Return what a run has published or measured, "-" if nothing yet; and for which channel."""
    text = _outcome(run)
    return f"{text} ({run.get('channel') or 'stable'})" if channel else text


def _outcome(run: Mapping[str, Any]) -> str:
    if run.get("kind") == "evaluate":
        return f"measured version {run['first_version']}"
    if run.get("kind") == "profile":
        return f"profiles of version {run['first_version']}"
    version, release = run["published_version"], run.get("release") or {}
    if release.get("kind") == "withheld":
        return f"version {release['version']} withheld"
    return "-" if version is None else f"version {version}"


def held_out(record: Mapping[str, Any]) -> str:
    """Return a round's scores before and after it, how far robots are apart, of how many examples.

    A score that was not finite is not there. Servers of earlier versions tell neither the range
    nor the number.
    """
    from fleet_model.measures import AFTER, changes

    def apart(name: str) -> str:
        low, high = record.get("spread", {}).get(name + AFTER, (0.0, 0.0))
        return f" (robots {low:.3f} to {high:.3f})" if low < high else ""

    scores = ", ".join(
        f"{name} {change.before:.3f} -> {change.after:.3f}{apart(name)}"
        for name, change in changes(record["metrics"]).items()
    )
    number = record.get("held_out")
    return f"{scores} of {number} examples" if scores and number else scores or "not measured"


def doubts(record: Mapping[str, Any]) -> list[str]:
    """Return what a person has to know of a round's examples before trusting its scores."""
    from fleet_model.protocol.example_counts import tell_labels, tell_left_out

    lines = []
    if labels := tell_labels(record.get("label_counts", {})):
        lines.append(f"examples of robots, by label: {labels}")
    if left_out := tell_left_out(record.get("left_out", {})):
        lines.append(f"left out by robots: {left_out}")
    return [*lines, *(f"WARNING: {one}" for one in record.get("warnings", ()))]


def shown_model(version: int | None, trial: Mapping[str, Any] | None) -> str:
    """Return a cell of a table: the version that a robot runs, and what became of the last one."""
    from fleet_model.protocol.trial import TrialOutcome

    active = "-" if version is None else str(version)
    if not trial:
        return active
    last = TrialOutcome.model_validate(trial)
    same = last.version == version
    return f"{active} {last.short}" if same else f"{active} ({last.version} {last.short})"
