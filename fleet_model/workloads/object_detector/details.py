"""What is told of detections beside their measures: each class, and precision against recall."""

from collections.abc import Mapping, Sequence

import numpy as np

from fleet_model.types import Tensor
from fleet_model.workload import Curves, Details
from fleet_model.workloads.object_detector.average_precision import (
    RECALLS,
    DetectionScores,
)


def details_of(scores: DetectionScores, labels: Sequence[str]) -> Details:
    """Return a row for each class, and the curves at an overlap of .5 of those that have boxes."""
    strict, mild = scores.average_precision(), scores.average_precision(0.5)
    table = {
        label: {
            "ap50": float(mild[index]),
            "ap": float(strict[index]),
            "boxes": float(scores.truths[0, index]),
        }
        for index, label in enumerate(labels)
    }
    return Details(table, Curves(_TITLE, "recall", "precision", _lines(scores, labels)))


_TITLE = "Precision and recall at an overlap of 0.5"


def _lines(scores: DetectionScores, labels: Sequence[str]) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Return the curves by name and value; of several classes the mean comes first."""
    there = [index for index in range(len(labels)) if scores.truths[0, index]]
    curves = {index: scores.curve(index) for index in there}
    lines = {}
    if len(there) > 1:
        mean = np.mean([precision for _, precision in curves.values()], axis=0)
        lines[f"mean {scores.map50:.3f}"] = RECALLS, mean
    ap50 = scores.average_precision(0.5)
    return lines | {f"{labels[index]} {ap50[index]:.3f}": curves[index] for index in there}
