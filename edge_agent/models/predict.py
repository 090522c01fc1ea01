"""Run a published model over a bag or a data set; write CSV or JSON, pictures, scores."""

import csv
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, fields
from io import TextIOWrapper
from itertools import islice
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any, NamedTuple, Protocol, TextIO

from edge_agent.data.confusion import Confusion, count_confusion
from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.labels import (
    TOLERANCE_S,
    LabelledFrame,
    LabelSettings,
    labelled_frames,
    require_label_source,
)
from fleet_model.bundle import Manifest
from fleet_model.durable import writing
from fleet_model.engine import Engine, TFLiteEngine
from fleet_model.errors import FrameError
from fleet_model.types import Frame
from fleet_model.workload import Workload

log = logging.getLogger(__name__)


class BundleEngine(Engine, Protocol):
    """An engine that knows which bundle it runs."""

    @property
    def workload(self) -> Workload:
        """What was learned; its labels are used."""
        ...

    @property
    def manifest(self) -> Manifest:
        """What was published; its version is used."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """What to run over what, and where the answers go."""

    path: Path  # bag, data set (folder, YOLO, COCO, TFDS) or image
    bundle: Path  # bundle directory
    precision: str = "fp32"
    topic: str = ""  # camera topic of a bag; "" takes the only one
    label_topic: str = ""  # topic of a bag with the truth, or a CSV file or data set that has it
    tolerance_s: float = TOLERANCE_S
    json: bool = False  # one JSON object on stdout, no CSV there
    csv_file: Path | None = None  # CSV goes here, not to stdout
    annotate: Path | None = None  # directory for a picture of every frame
    confusion: Path | None = None  # PNG
    limit: int | None = None  # frames


@dataclass(frozen=True, slots=True)
class Row:
    """The best answer for one frame: a line of the CSV."""

    file: str  # bag or folder that the frame was recorded to
    topic: str  # or the image's name in the folder
    stamp_ns: int
    label: str
    score: float  # 0..1
    truth: str  # "" where nobody said


class Predicted(NamedTuple):
    """A frame, what the engine says and how long that took."""

    frame: Frame
    row: Row
    milliseconds: float  # decoding, encoding, model


@dataclass(frozen=True, slots=True)
class PredictSummary:
    """What the answers are worth."""

    frames: int
    confusion: Confusion  # of the frames whose truth is known
    model_version: int
    milliseconds_per_frame: float | None  # median of decoding, encoding and model
    skipped: Mapping[str, int]  # reason -> frames, or places of damage that hides frames

    def sentence(self) -> str:
        """Return what a person wants to know."""
        skipped = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        parts = [f"version {self.model_version}: {self.frames} frames"]
        if self.confusion.count:
            parts.append(
                f"accuracy {self.confusion.accuracy:.3f}, macro F1 {self.confusion.macro_f1:.3f} "
                f"on the {self.confusion.count} labelled ones"
            )
        return "; ".join([*parts, f"skipped: {skipped}"] if skipped else parts)

    def as_json(self) -> dict[str, Any]:
        """Return the object that stands under "summary"."""
        return {
            "frames": self.frames,
            "labelled": self.confusion.count,
            "accuracy": self.confusion.accuracy,
            "macro_f1": self.confusion.macro_f1,
            "confusion": {
                "labels": list(self.confusion.labels),
                "matrix": self.confusion.matrix.tolist(),
            },
            "model_version": self.model_version,
            "milliseconds_per_frame": self.milliseconds_per_frame,
            "skipped": dict(self.skipped),
        }


def predict(
    engine: BundleEngine, labelled: Iterable[LabelledFrame], damage: DamageLog
) -> Iterator[Predicted]:
    """Yield the engine's best answer for every frame that can be decoded.

    Args:
        engine: of a classifier.
        labelled: frames; a label that the workload does not know is taken as no truth.
        damage: told about frames that cannot be decoded.
    """
    for frame, label, _ in labelled:
        start = time.perf_counter()
        try:
            best = engine.predict(frame)[0]
        except FrameError as error:
            damage.add(error.reason, str(error))
            log.info("%s", error)
            continue
        milliseconds = (time.perf_counter() - start) * 1e3
        truth = label if label in engine.workload.task.classes else ""
        row = Row(
            frame.source, frame.topic, frame.stamp_ns, best.label, round(best.score, 6), truth
        )
        yield Predicted(frame, row, milliseconds)


def open_bundle(bundle: Path, precision: str) -> BundleEngine:
    """Return the LiteRT engine of a bundle; raises BundleError."""
    return TFLiteEngine(bundle, precision)


def run_predict(
    options: PredictOptions,
    stdout: TextIO,
    open_engine: Callable[[Path, str], BundleEngine] = open_bundle,
) -> PredictSummary:
    """Do what `edge-agent predict` does: data to `stdout` or files, progress to a terminal.

    Raises:
        FrameError: not one frame can be read, or a confusion matrix is wanted of unlabelled ones.
        BundleError: the bundle is damaged or has no such precision.
        SettingsError: the labels named are neither a file nor a topic of a bag.
    """
    require_label_source((options.path,), options.label_topic)
    engine = open_engine(options.bundle, options.precision)
    settings = LabelSettings(options.topic, options.label_topic, options.tolerance_s)
    damage = DamageLog()
    labelled = labelled_frames(options.path, settings, damage)
    found = islice(predict(engine, labelled, damage), options.limit)
    rows, times = [], []
    with ExitStack() as files:
        keep = _row_writer(options, stdout, files)
        for index, (frame, row, milliseconds) in enumerate(_with_progress(found, options.limit)):
            keep(row)
            rows.append(row)
            times.append(milliseconds)
            if options.annotate:
                _annotate(options.annotate / f"{index:06d}_{_stem(frame)}.jpg", frame, row)
        if damage and not rows:
            raise FrameError(f"{options.path.name}: no frame can be read: {damage.sentence()}")
    if damage:
        log.warning("%s: damaged: %s", options.path.name, damage.sentence())
    pairs = ((row.truth, row.label) for row in rows if row.truth)
    summary = PredictSummary(
        frames=len(rows),
        confusion=count_confusion(pairs, engine.workload.task.classes),
        model_version=engine.manifest.version,
        milliseconds_per_frame=round(median(times), 3) if times else None,
        skipped={loss.kind: loss.count for loss in damage.all()},
    )
    if options.json:
        answers = [asdict(row) | {"truth": row.truth or None} for row in rows]
        json.dump({"predictions": answers, "summary": summary.as_json()}, stdout, indent=1)
        stdout.write("\n")
    if options.confusion:
        _draw_confusion(options.confusion, summary)
    return summary


def _row_writer(options: PredictOptions, stdout: TextIO, files: ExitStack) -> Callable[[Row], None]:
    """Return what takes one row after the other; `files` closes the CSV file."""
    if options.csv_file:
        stream = files.enter_context(writing(options.csv_file))
        wrapper = TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        files.callback(wrapper.detach)  # `writing` closes the stream itself
        text: TextIO = wrapper
    elif options.json:
        return lambda _: None
    else:
        text = stdout
    table = csv.writer(text, lineterminator="\n")
    table.writerow(field.name for field in fields(Row))
    return lambda row: table.writerow(astuple(row))


def _with_progress(found: Iterator[Predicted], limit: int | None) -> Iterator[Predicted]:
    """Pass everything on, counting on stderr where a person is watching."""
    if not sys.stderr.isatty():
        yield from found
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(found, total=limit, description="frames")


def _stem(frame: Frame) -> str:
    return f"{PurePosixPath(frame.topic).stem}_{frame.stamp_ns}"


def _annotate(path: Path, frame: Frame, row: Row) -> None:
    from edge_agent.data.drawing import annotated, write_picture

    write_picture(path, annotated(frame.decode(), row.label, row.score, row.truth))


def _draw_confusion(path: Path, summary: PredictSummary) -> None:
    from edge_agent.data.drawing import confusion_picture, write_picture

    if not summary.confusion.count:
        raise FrameError(
            f"{path.name}: no frame has a label; name a label topic, or sort images into folders "
            "named by label"
        )
    write_picture(path, confusion_picture(summary.confusion, f"model {summary.model_version}"))
