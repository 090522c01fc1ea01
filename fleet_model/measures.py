"""What a robot measures on its held-out examples, before and after its own training.

An update carries each measure of the workload twice: `accuracy_before` is that of the weights it
was sent, `accuracy_after` that of the weights it trained.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from fleet_model.types import Metrics

BEFORE, AFTER = "_before", "_after"
COUNTS = ("held_out", "unreadable")  # of examples
_TINY = 1e-12


class Change(NamedTuple):
    """One measure at both times."""

    before: float
    after: float


def at(moment: str, metrics: Metrics) -> Metrics:
    """Return measures under the names that an update carries; `moment` is BEFORE or AFTER."""
    return {f"{name}{moment}": value for name, value in metrics.items()}


def range_of(name: str) -> tuple[float, float]:
    """Return what a metric of that name can be: a share is 0 to 1, a number of examples at least 0.

    Of most measures nothing is known: a loss may be negative.
    """
    if name.removesuffix(BEFORE).removesuffix(AFTER) == "accuracy":
        return 0.0, 1.0
    return (0.0, 2.0**53) if name in COUNTS else (-math.inf, math.inf)


def is_share(name: str) -> bool:
    """Return whether a measure is a share of the examples."""
    return range_of(name) == (0.0, 1.0)


def loss(better: str, before: float, after: float, *, share: bool) -> float:
    """Return how much worse a measure has become, -1 to 1.

    Args:
        better: "higher" or "lower".
        before: its value before.
        after: its value now.
        share: whether it is compared as it is; anything else is by its size before.
    """
    worse = before - after if better == "higher" else after - before
    if not share:
        worse /= max(abs(before), _TINY)
    return min(max(worse, -1.0), 1.0)


def noise(before: float, after: float, examples: int) -> float:
    """Return how far a share moves by chance: two standard deviations.

    As if both were measured on other examples of that number. Of the same ones it moves less.
    """
    share = (before + after) / 2
    return 2.0 * math.sqrt(max(2.0 * share * (1.0 - share), 0.0) / examples)


def finite(metrics: Metrics) -> Metrics:
    """Return the measures that are numbers: NaN and infinity have no place in JSON."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def changes(metrics: Metrics) -> Mapping[str, Change]:
    """Return the measures that are there at both times, sorted by name."""
    names = sorted(name.removesuffix(BEFORE) for name in metrics if name.endswith(BEFORE))
    return {
        name: Change(metrics[f"{name}{BEFORE}"], metrics[f"{name}{AFTER}"])
        for name in names
        if f"{name}{AFTER}" in metrics
    }
