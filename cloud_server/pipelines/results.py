"""What a training says of itself: metrics.json and confusion_matrix.png."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cloud_server.pipelines.prepare import TRAINING, VALIDATION
from cloud_server.pipelines.tokens import Part
from fleet_model.confusion.counts import Confusion, count_confusion
from fleet_model.confusion.picture import confusion_picture, encoded
from fleet_model.errors import TrainingError
from fleet_model.types import Metrics, Tensor

METRICS, PICTURE = "metrics.json", "confusion_matrix.png"


def measured(found: Tensor, truth: Tensor, loss: float) -> Metrics:
    """Return accuracy, macro F1 and loss; `found` and `truth` are (rows,) numbers of labels."""
    count = int(max(found.max(), truth.max())) + 1
    confusion = _confusion([str(number) for number in range(count)], truth, found)
    assert confusion.accuracy is not None
    assert confusion.macro_f1 is not None
    return {"accuracy": confusion.accuracy, "macro_f1": confusion.macro_f1, "loss": loss}


def require_finite(
    metrics: Mapping[str, Any], history: Sequence[Mapping[str, Any]], learning_rate: float
) -> None:
    """Raise TrainingError where a score is no number: such a model is of no use."""
    for scores in (metrics, *history):
        for name, value in scores.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise TrainingError(
                    f"the validation's {name} is {value}: the model is not kept. Take a smaller "
                    f"--learning-rate than {learning_rate:g}"
                )


def write_results(
    into: Path,
    labels: Sequence[str],
    truth: Tensor,
    found: Tensor,
    metrics: Mapping[str, Any],
    parts: Mapping[str, Part],
) -> None:
    """Write both files.

    Args:
        into: where.
        labels: in the order of their numbers.
        truth: (rows,) numbers of the validation's labels.
        found: (rows,) numbers that the model answers.
        metrics: finite; "history" has the scores on the way.
        parts: how many rows there were.
    """
    confusion = _confusion(labels, truth, found)
    told = {
        **metrics,
        "examples": {side: len(parts[side].labels) for side in (TRAINING, VALIDATION)},
        "labels": list(labels),
        "confusion": {"labels": confusion.labels, "matrix": confusion.matrix.tolist()},
    }
    text = json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False)
    (into / METRICS).write_text(text + "\n", "utf-8")
    drawn = confusion_picture(confusion, f"{confusion.count} texts of validation")
    (into / PICTURE).write_bytes(encoded(drawn, ".png"))


def _confusion(labels: Sequence[str], truth: Tensor, found: Tensor) -> Confusion:
    pairs = np.stack([truth, found], axis=1).tolist()
    return count_confusion(((labels[t], labels[f]) for t, f in pairs), labels)
