"""What a robot tells of its pseudo-labels: how many, by class, from which score on, their weight.

The numbers travel among the metrics of an update. Classes are numbers there, in the fleet's order.
"""

import math
from collections.abc import Sequence
from typing import Any

from fleet_model.types import Metrics, Tensor

PSEUDO = "pseudo_"  # before every name
MOST_CLASSES = 20  # that are told one by one: an update has at most 100 metrics
_UNLABELLED, _EXAMPLES, _WEIGHT = PSEUDO + "unlabelled", PSEUDO + "examples", PSEUDO + "weight"
_COUNT, _LEAST = PSEUDO + "count_", PSEUDO + "least_"  # before the number of a class


def as_metrics(
    unlabelled: int, examples: int, weight: float, least: Tensor, counts: Tensor
) -> Metrics:
    """Return the metrics that tell it.

    Args:
        unlabelled: examples without a truth that were looked at.
        examples: of these have one now.
        weight: of each in training, their mean.
        least: (classes,) lowest score that counts; inf: none does.
        counts: (classes,) answers that became truth.
    """
    told = {_UNLABELLED: float(unlabelled), _EXAMPLES: float(examples), _WEIGHT: weight}
    for index, (score, count) in enumerate(zip(least, counts, strict=True)):
        if index < MOST_CLASSES and math.isfinite(score):
            told |= {f"{_LEAST}{index}": float(score), f"{_COUNT}{index}": float(count)}
    return told


def named(metrics: Metrics, classes: Sequence[str]) -> dict[str, Any]:
    """Return what an update tells as JSON values, classes by their names; {} if it tells nothing.

    Args:
        metrics: of an update.
        classes: of the fleet, in its order.
    """
    if _UNLABELLED not in metrics:
        return {}
    known = {index: name for index, name in enumerate(classes) if f"{_LEAST}{index}" in metrics}
    return {
        "unlabelled": round(metrics[_UNLABELLED]),
        "examples": round(metrics[_EXAMPLES]),
        "weight": metrics[_WEIGHT],
        "counts": {name: round(metrics[f"{_COUNT}{i}"]) for i, name in known.items()},
        "least": {name: round(metrics[f"{_LEAST}{i}"], 4) for i, name in known.items()},
        "unsure": [name for i, name in enumerate(classes[:MOST_CLASSES]) if i not in known],
    }


def in_words(told: dict[str, Any]) -> str:
    """Return what `named` tells, for people."""
    words = f"{told['examples']} of {told['unlabelled']} unlabelled examples"
    if counts := told["counts"]:
        each = (
            f"{count} {name} (from {told['least'][name]:.2f})" for name, count in counts.items()
        )
        words += f", weight {told['weight']:.2g}: {', '.join(each)}"
    if unsure := told["unsure"]:
        words += f"; none of {', '.join(unsure)}: the model is not sure enough of them here"
    return words
