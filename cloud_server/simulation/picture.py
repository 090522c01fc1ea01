"""The picture of a simulation: how fast it learns, and what became of the questions."""

from collections.abc import Sequence
from pathlib import Path

from cloud_server.simulation.chart import AMBER, GRAY, RED, TEAL, Bars, Lines, write_chart
from cloud_server.simulation.simulate import RoundLine, SimulationPlan, SimulationSummary

_UNITS = ((48.0, 24.0, "days"), (2.0, 1.0, "hours"), (0.0, 1 / 60, "minutes"))  # from, hours, name


def write_picture(
    path: Path, plan: SimulationPlan, lines: Sequence[RoundLine], summary: SimulationSummary
) -> None:
    """Write a PNG.

    Raises:
        StorageError: it cannot be written there.
    """
    rounds = plan.settings.rounds
    scale, unit = next((h, name) for least, h, name in _UNITS if summary.hours >= least)
    asked = f"{rounds.target} asked at a time" if rounds.target else "all asked"
    note = (
        f"{rounds.mode}, {asked}, quorum {rounds.quorum}, deadline {rounds.deadline_s:g} s; "
        f"{plan.traits.off:.0%} switched off, {plan.traits.drop:.0%} drop out, label skew "
        f"{plan.traits.skew:g}; {_size(summary.gb_down)} down, {_size(summary.gb_up)} up"
    )
    heading = (
        f"{summary.robots:,} robots, {summary.rounds} rounds: accuracy {summary.accuracy:.2f} "
        f"after {summary.hours / scale:.3g} {unit}"
    )
    accuracy = Lines(
        title="Accuracy on examples that no robot has",
        x_name=f"simulated {unit}",
        points={"accuracy": [(line.hours / scale, line.accuracy) for line in lines]},
        top=1.0,
        shown=lambda value: f"{value:.2f}",
    )
    outcomes = Bars(
        title="What became of the questions",
        x_name="round",
        names=[str(line.round) for line in lines],
        parts={
            "accepted": [line.accepted for line in lines],
            "late": [line.late for line in lines],
            "gone": [line.gone for line in lines],
            "refused": [line.refused for line in lines],
        },
        colors=(TEAL, AMBER, GRAY, RED),
        shown=lambda value: f"{value:,.0f}",
    )
    write_chart(path, heading, note, (accuracy, outcomes))


def _size(gigabytes: float) -> str:
    return f"{gigabytes:,.1f} GB" if gigabytes >= 1 else f"{gigabytes * 1000:,.0f} MB"
