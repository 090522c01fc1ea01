"""Compare runs: what each had reached after how many rounds, bytes and seconds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cloud_server.models.release_log import Release
from cloud_server.runs.conditions import Conditions
from cloud_server.simulation.chart import Lines, round_up, write_chart
from cloud_server.state.round_record import RoundRecord
from fleet_model.errors import SettingsError
from fleet_model.measures import BEFORE, is_share

MAX_RUNS = 5  # lines that one can tell apart


class Point(NamedTuple):
    """What a model of the run was measured at, and what it had cost until then."""

    rounds: int  # closed before
    megabytes: float  # that robots had sent; 1e6 bytes
    seconds: float  # of these rounds
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCurve:
    """One run."""

    run: str
    rounds: int
    megabytes: float
    seconds: float
    robots: int  # that were accepted at least once
    measured: Mapping[str, Sequence[Point]] = field(default_factory=dict)  # measure -> points
    conditions: Sequence[Conditions] = ()

    def until(self, measure: str, target: float, *, higher: bool) -> Point | None:
        """Return the first point that has reached a value; None: it never did."""
        points = self.measured.get(measure, ())
        return next(
            (p for p in points if (p.value >= target if higher else p.value <= target)), None
        )


def curve_of(
    run: str,
    records: Iterable[RoundRecord],
    release: Release | None,
    conditions: Sequence[Conditions],
) -> RunCurve:
    """Return a run as its closed rounds tell it.

    A round's robots measure the model that it began with; the last model is measured for the gate.

    Args:
        run: its id.
        records: its rounds, oldest first.
        release: what became of its last version; None: nothing yet.
        conditions: of the run.
    """
    measured: dict[str, list[Point]] = {}
    rounds, sent, seconds, version, robots = 0, 0, 0.0, -1, set[str]()
    for record in records:
        for name, value in record.metrics.items():
            if name.endswith(BEFORE):
                point = Point(rounds, sent / 1e6, seconds, value)
                measured.setdefault(name.removesuffix(BEFORE), []).append(point)
        accepted = [robot for robot in record.robots if robot.accepted]
        robots |= {robot.name for robot in accepted}
        sent += sum(robot.update_bytes for robot in record.robots)
        rounds, seconds, version = rounds + 1, seconds + record.seconds, record.version
    if release is not None and release.root == version:
        for name, value in release.after.items():
            measured.setdefault(name, []).append(Point(rounds, sent / 1e6, seconds, value))
    return RunCurve(
        run=run,
        rounds=rounds,
        megabytes=sent / 1e6,
        seconds=seconds,
        robots=len(robots),
        measured=measured,
        conditions=conditions,
    )


def measure_of(curves: Sequence[RunCurve], measures: Iterable[str], wanted: str = "") -> str:
    """Return the measure that all runs have.

    Args:
        curves: the runs.
        measures: of the workload, the most telling first.
        wanted: by the operator; "": the first that fits.

    Raises:
        SettingsError: there is none, or not this one.
    """
    for one in curves:
        if not one.measured:
            raise SettingsError(f"run {one.run}: no robot has measured anything in it")
    common = set.intersection(*(set(one.measured) for one in curves))
    if wanted and wanted not in common:
        raise SettingsError(
            f"--measure {wanted}: these runs have {', '.join(sorted(common)) or 'none'} in common"
        )
    found = wanted or next((name for name in (*measures, *sorted(common)) if name in common), "")
    if not found:
        raise SettingsError("these runs have no measure in common")
    return found


def target_of(curves: Sequence[RunCurve], measure: str, *, higher: bool) -> float:
    """Return the best value that each of the runs has reached."""
    best = [_best(one, measure, higher=higher) for one in curves]
    return min(best) if higher else max(best)


def differences(curves: Sequence[RunCurve]) -> dict[str, list[str]]:
    """Return what is not the same in all runs: name -> a value for each; "" where it is not known.

    A value that has changed within a run is given with all that it was, first ones first.
    """
    each = [_values(one.conditions) for one in curves]
    known = [values for values in each if values]
    names = {name for values in known for name in values}
    return {
        name: [values.get(name, "") for values in each]
        for name in sorted(names)
        if len({values.get(name, "") for values in known}) > 1
    }


def as_json(curves: Sequence[RunCurve], measure: str, *, higher: bool) -> dict[str, Any]:
    """Return all of it as JSON values."""
    target = target_of(curves, measure, higher=higher)
    return {
        "measure": measure,
        "better": "higher" if higher else "lower",
        "target": target,
        "runs": [
            {
                "run": one.run,
                "rounds": one.rounds,
                "megabytes": one.megabytes,
                "seconds": one.seconds,
                "robots": one.robots,
                "best": _best(one, measure, higher=higher),
                "points": [point._asdict() for point in one.measured[measure]],
                "until_target": reached._asdict() if reached else None,
                "conditions": [condition.model_dump() for condition in one.conditions],
            }
            for one in curves
            for reached in (one.until(measure, target, higher=higher),)
        ],
        "differences": differences(curves),
    }


def draw(path: Path, curves: Sequence[RunCurve], measure: str) -> None:
    """Write a PNG: the measure by rounds, by bytes and by seconds.

    Raises:
        StorageError: it cannot be written there.
    """
    values = [point.value for one in curves for point in one.measured[measure]]
    top = 1.0 if is_share(measure) else round_up(max(values))
    axes = (("rounds", "rounds"), ("megabytes", "MB that robots sent"), ("seconds", "seconds"))
    panels = [
        Lines(
            title=f"{measure} by {name}",
            x_name=name,
            points={
                one.run: [(float(getattr(p, axis)), p.value) for p in one.measured[measure]]
                for one in curves
            },
            top=top,
            shown=lambda value: f"{value:.3g}",
            values=False,  # lines are near each other
        )
        for axis, name in axes
    ]
    note = "each point: a model as the robots of the next round measured it on held-out examples"
    write_chart(path, f"{len(curves)} runs compared", note, panels)


def _best(one: RunCurve, measure: str, *, higher: bool) -> float:
    values = [point.value for point in one.measured[measure]]
    return max(values) if higher else min(values)


def _values(conditions: Sequence[Conditions]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for one in conditions:
        for name, value in one.flat().items():
            before = found.setdefault(name, [])
            if not before or before[-1] != value:
                before.append(value)
    return {name: ", then ".join(values) for name, values in found.items()}
