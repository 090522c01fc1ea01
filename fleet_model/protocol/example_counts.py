"""How many examples a robot has and how many it left out, by kind: what its scores are worth.

The numbers travel among the metrics of a reply, so servers that do not know them keep them like
any other metric, and robots that count nothing send none. Labels and file names are not among them:
how many examples have each label is a list in the order of the fleet's own labels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleet_model.errors import one_line
from fleet_model.protocol.pseudo_counts import PSEUDO
from fleet_model.types import Metrics

KINDS: Mapping[str, str] = {  # of what is left out -> what it is, after its number
    "unknown_label": "with a label that this fleet does not learn",
    "unlabelled": "without a label",
    "unreadable": "unreadable",
    "too_near": "too near to training examples to measure with",
    "copy": "copies of others",
    "too_few": "of labels with too few frames or moments to tell sums of",
    "waiting": "new ones that wait for more of their label before sums are told",
    "other": "for other reasons",
}
LEFT_OUT = "left_out_"  # before a kind: the metric's name
SUMS = "sums_"  # before what a round tells of sums: of how many robots, and how they were solved
LABELS, HELD_OUT, UNREADABLE = "labels", "held_out", "unreadable"  # further metrics
TAUGHT = "taught_"  # before what a round tells of examples that a teacher labelled
TAUGHT_EXAMPLES, TAUGHT_WEIGHT = TAUGHT + "examples", TAUGHT + "weight"
SPEAKS_FOR = "relayed_robots"  # of a site relay: how many robots' mean it sends
MOST_UNKNOWN = 0.2  # share of the labelled examples; above it labels are spelled differently
LEAST_HELD_OUT = 20  # with fewer, one example more or less changes an accuracy by over 0.05
CONCERNS: Mapping[str, str] = {  # what makes scores doubtful -> in words, before names of robots
    "unknown_labels": "many labels that this fleet does not learn, so look at their spelling",
    "one_label": "examples of one label only, which teach no difference",
    "few_held_out": f"fewer than {LEAST_HELD_OUT} held-out examples, so scores say little",
}
MOST_LABELS = 20  # in one line
_MOST = 2**53


@dataclass(frozen=True, slots=True)
class ExampleCounts:
    """One robot's numbers; None where it did not tell."""

    training: int
    held_out: int | None
    labels: int | None  # different ones among its examples
    left_out: Mapping[str, int]  # kind -> examples, over 0 each
    by_label: Mapping[str, int] = field(default_factory=dict)  # over 0 each; none: not told

    @property
    def examples(self) -> int:
        """Return how many examples have a label that is learned."""
        return sum(self.by_label.values()) or self.training + (self.held_out or 0)

    @property
    def concerns(self) -> Mapping[str, str]:
        """Return keys of CONCERNS that apply -> the numbers behind each, in words."""
        found = {}
        unknown = self.left_out.get("unknown_label", 0)
        labelled = unknown + self.examples + self.left_out.get("too_near", 0)
        if unknown > MOST_UNKNOWN * labelled:
            found["unknown_labels"] = f"{unknown} of {labelled} labelled examples"
        if self.labels == 1:
            found["one_label"] = f"{self.examples} examples"
        if self.held_out is not None and self.held_out < LEAST_HELD_OUT:
            found["few_held_out"] = f"{self.held_out} held-out examples"
        return found


def counts_of(
    num_examples: int, metrics: Metrics, by_label: Mapping[str, int] | None = None
) -> ExampleCounts:
    """Return what a reply tells; numbers of a stranger become counts that JSON can hold."""
    left_out = {kind: _count(metrics.get(LEFT_OUT + kind, 0)) for kind in KINDS}
    return ExampleCounts(
        training=num_examples,
        held_out=_count(metrics[HELD_OUT]) if HELD_OUT in metrics else None,
        labels=_count(metrics[LABELS]) if LABELS in metrics else None,
        left_out={kind: count for kind, count in left_out.items() if count},
        by_label=by_label or {},
    )


def is_count(metric: str) -> bool:
    """Return whether a metric counts examples; any other measures, or tells what it cost."""
    counted = metric in (LABELS, HELD_OUT, UNREADABLE, SPEAKS_FOR)
    return counted or metric.startswith((LEFT_OUT, SUMS, PSEUDO, TAUGHT))


def as_metrics(left_out: Mapping[str, int], labels: int | None) -> Metrics:
    """Return the metrics that tell it; `labels` None is not told."""
    told = {LEFT_OUT + kind: float(count) for kind, count in left_out.items()}
    return told if labels is None else {**told, LABELS: float(labels)}


def taught_metrics(weights: Sequence[float]) -> Metrics:
    """Return the metrics that tell of examples which a teacher labelled; none without one.

    Args:
        weights: of each of them in training; their mean is told.
    """
    if not weights:
        return {}
    mean = math.fsum(weights) / len(weights)
    return {TAUGHT_EXAMPLES: float(len(weights)), TAUGHT_WEIGHT: mean}


def tell_taught(metrics: Metrics) -> str:
    """Return what `taught_metrics` tells in words; "" if nothing."""
    if TAUGHT_EXAMPLES not in metrics:
        return ""
    count, weight = metrics[TAUGHT_EXAMPLES], metrics.get(TAUGHT_WEIGHT, 1.0)
    return f"{count:.0f} training examples labelled by a teacher, weight {weight:.2g}"


def tell_left_out(left_out: Mapping[str, int]) -> str:
    """Return the kinds in words, "" if nothing is left out."""
    return ", ".join(
        f"{left_out[kind]} {words}" for kind, words in KINDS.items() if kind in left_out
    )


def tell_labels(counts: Mapping[str, int]) -> str:
    """Return labels with their numbers in words, the fewest first where not all can be shown."""
    shown = list(counts.items())
    if (more := len(shown) - MOST_LABELS) > 0:
        shown = sorted(shown, key=lambda item: item[1])[:MOST_LABELS]
    told = ", ".join(f"{one_line(label)} {count}" for label, count in shown)
    return f"{told}, and {more} more with as many or more" if more > 0 else told


def _count(value: float) -> int:
    return 0 if math.isnan(value) else int(min(max(value, 0.0), _MOST))
