"""What a model says of each input, as rows of a table, and what its answers are worth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_agent.examples.lazy_frame import LazyFrame
from edge_agent.examples.texts.text_store import row_of_key
from fleet_model.bundle import Task
from fleet_model.confusion.counts import Confusion
from fleet_model.protocol.example_counts import tell_left_out
from fleet_model.types import Example, Frame, Instruction, Metrics, Prediction
from fleet_model.workload import Details

# Task.answer -> what a row has besides where the input is.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "class": ("label", "score", "truth"),
    "boxes": ("label", "score", "x0", "y0", "x1", "y1"),
    "text": ("text", "score"),
}
MOST_TOLD = 10  # labels
OF_FRAMES, OF_TEXTS = ("file", "topic", "stamp_ns"), ("file", "row", "id")
SCORE_OF = "p_"  # before a class: the column of its score, of texts
FRAMES = (Frame, LazyFrame)  # what isinstance takes: of a path, and of this robot's own examples


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prediction for one input; an input of which nothing is predicted has a row, too."""

    file: str  # bag or folder that the frame was recorded to; the key of what is no frame
    topic: str = ""  # or the image's name in the folder
    stamp_ns: int = 0
    prediction: Prediction | None = None  # None: the model found nothing
    truth: str = ""  # "" where nobody said
    row: int | None = None  # of a text: the line or row of its table
    id: str = ""  # of a text: what its table calls it
    scores: Mapping[str, float] = field(default_factory=dict)  # of a text: class -> score

    def cells(self, columns: Sequence[str]) -> dict[str, Any]:
        """Return column -> JSON value, None for what there is not, in the order of `columns`."""
        found, box = self.prediction, self.prediction and self.prediction.box
        values = {
            "label": found and found.label,
            "score": found and round(found.score, 6),
            "truth": self.truth or None,
            "text": found and found.text,
            **dict(zip(("x0", "y0", "x1", "y1"), box or (None,) * 4, strict=True)),
        }
        values |= {"file": self.file, "topic": self.topic, "stamp_ns": self.stamp_ns}
        values |= {"row": self.row, "id": self.id or None}
        values |= {SCORE_OF + name: round(score, 6) for name, score in self.scores.items()}
        return {name: values.get(name) for name in columns}


def columns_of(task: Task, *, texts: bool = False) -> tuple[str, ...]:
    """Return the columns of the table of answers; of `texts` with the score of every class."""
    if not texts:
        return (*OF_FRAMES, *COLUMNS[task.answer])
    if task.answer == "text":
        return (*OF_TEXTS, "text", "truth")
    scores = (SCORE_OF + name for name in task.learned)
    return (*OF_TEXTS, *COLUMNS[task.answer], *scores)


def rows_of(example: Example, predictions: Sequence[Prediction], truth: str) -> list[Row]:
    """Return the best prediction about the whole input, and all that have a box; one row at least.

    Predictions about the whole input are alternatives, best first; boxes are not.
    """
    best = [found for found in predictions if found.box is None][:1]
    boxes = [found for found in predictions if found.box is not None]
    frame = example.raw
    where: dict[str, Any] = {"file": example.key, "truth": truth}
    if isinstance(frame, FRAMES):
        where |= {"file": frame.source, "topic": frame.topic, "stamp_ns": frame.stamp_ns}
    elif isinstance(frame, (str, Instruction)):
        file, row = row_of_key(example.key)
        scores = {found.label: found.score for found in predictions if found.label}
        where |= {"file": file, "row": row, "scores": scores}
        where["id"] = str(example.targets.get("id", ""))
    return [Row(prediction=found, **where) for found in best + boxes] or [Row(**where)]


@dataclass(frozen=True, slots=True)
class PredictSummary:
    """What the answers are worth."""

    frames: int
    labelled: int  # frames whose truth is known
    measures: Metrics  # the workload's own, over the labelled frames; none without one
    confusion: Confusion | None  # of the labelled frames, where an answer is a class
    model_version: int
    milliseconds_per_frame: float | None  # median of decoding, encoding and model
    skipped: Mapping[str, int]  # reason -> frames, or places of damage that hides frames
    losses: str = ""  # the same with the first place of each
    unknown_labels: Mapping[str, int] = field(
        default_factory=dict
    )  # that the model lacks -> frames
    left_out: Mapping[str, int] = field(default_factory=dict)  # of this robot's examples, by kind
    runs: str = ""  # whether the shared model answered, or with what of this robot's own
    details: Details | None = None  # of the labelled frames, where the workload has some
    inputs: str = "frames"  # what they are, in words
    notes: Sequence[str] = ()  # what else to tell of them, in words

    def sentence(self) -> str:
        """Return what a person wants to know."""
        skipped = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        parts = [f"version {self.model_version}: {self.frames} {self.inputs}"]
        if self.labelled:
            parts.append(f"{self._scores()} of {self.labelled} labelled {self.inputs}")
        if self.runs:
            parts.append(f"by {self.runs}")
        if number := sum(self.unknown_labels.values()):
            listed = list(self.unknown_labels)
            more = f" and {len(listed) - MOST_TOLD} more" if len(listed) > MOST_TOLD else ""
            words = ", ".join(listed[:MOST_TOLD]) + more
            parts.append(f"{number} have labels that the model does not know: {words}")
        if self.left_out:
            parts.append(f"left out: {tell_left_out(self.left_out)}")
        parts.extend(self.notes)
        return "; ".join([*parts, f"skipped: {skipped}"] if skipped else parts)

    def table(self) -> list[str]:
        """Return the details as lines of a table, a row a line; none without any."""
        rows = self.details.table if self.details else {}
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
        cells = [["", *columns]] if columns else []
        for name, row in rows.items():
            values = (row.get(column, math.nan) for column in columns)
            cells.append([name, *("-" if math.isnan(v) else f"{v:.4g}" for v in values)])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in cells
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the object that is stored under "summary"."""
        confusion = self.confusion
        classes = confusion and {
            "accuracy": confusion.accuracy,
            "macro_f1": confusion.macro_f1,
            "confusion": {
                "labels": list(confusion.labels),
                "matrix": confusion.matrix.tolist(),
            },
        }
        return {
            "frames": self.frames,
            "labelled": self.labelled,
            **(classes or {}),
            "measures": {n: v for n, v in self.measures.items() if math.isfinite(v)},
            "model_version": self.model_version,
            "milliseconds_per_frame": self.milliseconds_per_frame,
            "skipped": dict(self.skipped),
            "unknown_labels": dict(self.unknown_labels),
            "left_out": dict(self.left_out),
            **({"runs": self.runs} if self.runs else {}),
            **({"notes": [*self.notes]} if self.notes else {}),
            **({"details": _numbers(self.details.table)} if self.details else {}),
        }

    def _scores(self) -> str:
        if self.confusion is not None:
            accuracy, f1 = self.confusion.accuracy, self.confusion.macro_f1
            return f"accuracy {accuracy:.3f}, macro F1 {f1:.3f}"
        return ", ".join(f"{name} {value:.3f}" for name, value in self.measures.items())


def _numbers(
    table: Mapping[str, Mapping[str, float]],
) -> Mapping[str, Mapping[str, float | None]]:
    return {
        name: {column: value if math.isfinite(value) else None for column, value in row.items()}
        for name, row in table.items()
    }
