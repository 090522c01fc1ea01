"""What non_iid.py shows: its runs as a table for docs/benchmarks.md, and as two charts."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloud_server.simulation.chart import AMBER, GRAY, TEAL, Bars, Lines, write_chart

PICTURES, ROUNDS = 10_000, 20
SKEWED = 0.1
SHOWN = ("fedavg", "fedadam", "fedavgm", "adjusted")  # in the chart of accuracy by round


@dataclass(frozen=True)
class Run:
    """One fleet that learns."""

    side: str  # "ours", "flower"
    arm: str  # of fashion_fleet.ARMS, or "central"
    skew: float  # Dirichlet; 0: central
    seed: int
    rounds: int = ROUNDS
    pictures: int = PICTURES


def means_of(accuracies: Mapping[Run, float]) -> dict[tuple[str, str, float], float]:
    """Return (side, arm, skew) -> mean over seeds."""
    return {key: statistics.mean(values) for key, values in _by_seed(accuracies).items()}


def _by_seed(accuracies: Mapping[Run, float]) -> dict[tuple[str, str, float], list[float]]:
    grouped: dict[tuple[str, str, float], list[float]] = {}
    for run, value in accuracies.items():
        grouped.setdefault((run.side, run.arm, run.skew), []).append(value)
    return grouped


def markdown(accuracies: Mapping[Run, float]) -> str:
    """Return rows of rules, columns of skews: ours / Flower's, and from the worst seed to the best.

    A dash says that Flower has no such rule.
    """
    seeds, means = _by_seed(accuracies), means_of(accuracies)
    skews = sorted({run.skew for run in accuracies if run.skew})
    heads = ["rule"]
    for skew in skews:
        heads += [f"Dirichlet {skew:g}", "Flower", *(["ours, seeds"] if skew == skews[0] else [])]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for arm in dict.fromkeys(run.arm for run in accuracies if run.skew):
        cells = []
        for skew in skews:
            if ("ours", arm, skew) not in means:
                cells += ["", ""]  # never the first skew: it has all rules
                continue
            peer = means.get(("flower", arm, skew))
            cells += [f"{means['ours', arm, skew]:.3f}", "-" if peer is None else f"{peer:.3f}"]
            if skew == skews[0]:
                own = seeds["ours", arm, skew]
                cells.append(f"{min(own):.3f} to {max(own):.3f}")
        lines.append(f"| `{arm}` | " + " | ".join(cells) + " |")
    lines.append(f"\nCentral: {means['ours', 'central', 0.0]:.3f}")
    return "\n".join(lines) + "\n"


def plots(folder: Path, curves: Mapping[Run, Sequence[float]], last: int) -> None:
    """Write accuracy by round, and the spread over seeds, both at the strongest skew."""
    note = "Fashion-MNIST, ten robots, Dirichlet 0.1, accuracy on the test pictures"
    panels = [
        _by_round("This project, and central training", "ours", curves),
        _by_round("Flower", "flower", curves),
    ]
    write_chart(folder / "non-iid-rounds.png", "Accuracy by round", note, panels)
    scores = {run: statistics.mean(curve[-last:]) for run, curve in curves.items()}
    own = {
        arm: sorted(values)
        for (side, arm, skew), values in _by_seed(scores).items()
        if side == "ours" and skew in (0.0, SKEWED)
    }
    names = list(own)
    half = -(-len(names) // 2)  # names of more bars would write over each other
    panels = [_bars({name: own[name] for name in part}) for part in (names[:half], names[half:])]
    write_chart(folder / "non-iid-seeds.png", "Worst seed, mean, best seed", note, panels)


def _bars(own: Mapping[str, Sequence[float]]) -> Bars:
    """Return a bar for each arm; its values are sorted."""
    means = {arm: statistics.mean(values) for arm, values in own.items()}
    return Bars(
        title="Mean of the last rounds",
        x_name="rule",
        names=list(own),
        parts={
            "worst": [values[0] for values in own.values()],
            "to the mean": [means[arm] - values[0] for arm, values in own.items()],
            "to the best": [values[-1] - means[arm] for arm, values in own.items()],
        },
        colors=(TEAL, AMBER, GRAY),
        shown=lambda y: f"{y:.2f}",
    )


def _by_round(title: str, side: str, curves: Mapping[Run, Sequence[float]]) -> Lines:
    lines: dict[str, list[tuple[float, float]]] = {}
    for arm, skew in (*((arm, SKEWED) for arm in SHOWN), ("central", 0.0)):
        own = [c for r, c in curves.items() if (r.side, r.arm, r.skew) == (side, arm, skew)]
        if own:
            by_round = [statistics.mean(values) for values in zip(*own, strict=True)]
            lines[arm] = [(number, value) for number, value in enumerate(by_round, start=1)]
    return Lines(
        title=title, x_name="round", points=lines, top=1.0, shown=lambda y: f"{y:.1f}",
        values=False,
    )  # fmt: skip
