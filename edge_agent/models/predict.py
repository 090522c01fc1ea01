"""Run a published model over a bag or a data set; write CSV or JSON, pictures, scores."""

import csv
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import TextIOWrapper
from itertools import islice
from pathlib import Path, PurePosixPath
from statistics import median
from typing import NamedTuple, TextIO

import numpy as np

from edge_agent.data.confusion import count_confusion
from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.frames.source import is_bag, is_live, shown
from edge_agent.data.label_formats.label_topic import has_topic
from edge_agent.data.label_words import require_label_source
from edge_agent.data.labels import (
    TOLERANCE_S,
    LabelSettings,
    labelled_frames,
)
from edge_agent.examples.source import EXAMPLE_SOURCES, SourceSpec
from edge_agent.models.predictions import COLUMNS, FRAMES, PredictSummary, Row, rows_of
from fleet_model.bundle import Task
from fleet_model.command_line.output_file import (
    STDOUT,
    output_file,
    require_folder,
    require_output,
    write_output,
)
from fleet_model.engine import Engine, open_engine
from fleet_model.errors import FleetError, FrameError, SettingsError
from fleet_model.types import Example, Metrics, Target, Tensors
from fleet_model.workload import Workload

log = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """What to run over what, and where the answers go."""

    bundle: Path  # bundle directory
    path: Path | None = None  # bag, data set, image, video, live source
    source: SourceSpec | None = None  # without a path: the examples of this robot
    precision: str = "fp32"
    topic: str = ""  # camera topic of a bag; "" takes the only one
    label_topic: str = ""  # topic of a bag with the truth, or a CSV file or data set that has it
    usual_labels: str = ""  # label topic of this robot's own bags, for bags that have it
    tolerance_s: float = TOLERANCE_S
    json: bool = False  # one JSON object on stdout, no CSV there
    csv_file: Path | None = None  # CSV goes here, not to stdout
    annotate: Path | None = None  # directory for a picture of every frame
    confusion: Path | None = None  # PNG
    limit: int | None = None  # frames


class Predicted(NamedTuple):
    """An input, what the engine says and how long that took."""

    example: Example
    rows: Sequence[Row]
    outputs: Tensors
    target: Target | None  # None: the truth is not known
    milliseconds: float  # decoding, encoding, model
    unknown: str = ""  # the label that somebody gave and the model lacks


def predict(engine: Engine, examples: Iterable[Example], damage: DamageLog) -> Iterator[Predicted]:
    """Yield what the engine says of every input that can be read.

    Args:
        engine: of any workload.
        examples: a truth that the workload does not know is taken as none.
        damage: gets the inputs that cannot be decoded.
    """
    workload = engine.workload
    labels = set(workload.task.learned)
    for example in examples:
        start = time.perf_counter()
        try:
            answer = engine.answer(example.raw)
        except FrameError as error:
            damage.add(error.reason, str(error))
            log.info("%s", error)
            continue
        milliseconds = (time.perf_counter() - start) * 1e3
        label = example.label or ""
        unknown = label if labels and label not in labels else ""
        truth = label if label in labels else ""
        rows = rows_of(example, answer.predictions, truth)
        target = _target(workload, example)
        yield Predicted(example, rows, answer.outputs, target, milliseconds, unknown)


def open_bundle(bundle: Path, precision: str) -> Engine:
    """Return the LiteRT engine of a bundle; raises BundleError."""
    return open_engine(bundle, precision)


def run_predict(
    options: PredictOptions,
    stdout: TextIO,
    open_engine: Callable[[Path, str], Engine] = open_bundle,
) -> PredictSummary:
    """Do what `edge-agent predict` does: data to `stdout` or files, progress to a terminal.

    Raises:
        FrameError: not one frame can be read, or a confusion matrix is wanted of unlabelled ones.
        BundleError: the bundle is damaged or has no such precision.
        SettingsError: the labels named are neither a file nor a topic of a bag, or the workload
            has no classes for a confusion matrix, or an output is named that cannot be.
        StorageError: an output cannot be written; found before the work where that can be known.
    """
    _require_outputs(options)
    if options.path is not None:
        require_label_source((options.path,), options.label_topic)
    engine = open_engine(options.bundle, options.precision)
    task = engine.workload.task
    if options.confusion and task.answer != "class":
        raise SettingsError(
            f"--confusion needs a model that answers classes; this one answers {task.answer}"
        )
    damage, found, left_out = DamageLog(), list[Predicted](), Counter[str]()
    task = task.model_copy(update={"former": engine.manifest.described_task.former})
    examples = _examples(_with_usual_labels(options), task, damage, left_out)
    name = shown(options.path) if options.path else "the examples of this robot"
    with ExitStack() as files:
        keep = _row_writer(options, task.answer, stdout, files)
        each = _with_progress(islice(predict(engine, examples, damage), options.limit), options)
        for index, one in enumerate(each):
            for row in one.rows:
                keep(row)
            if options.annotate:
                _annotate(options.annotate, index, one)
            found.append(_without_input(one))
        if damage and not found:
            raise FrameError(f"{name}: no frame can be read: {damage.sentence()}")
        if not found and options.path and not is_live(options.path):
            raise FrameError(f"{name}: holds no frame; `edge-agent inspect` shows what it holds")
    summary = _summary(engine, found, damage, left_out)
    if options.json:
        answers = [row.cells(task.answer) for one in found for row in one.rows]
        rows = ",\n".join(map(json.dumps, answers))  # one a line: as long as a CSV of them
        stdout.write(
            f'{{"predictions": [\n{rows}\n], "summary": {json.dumps(summary.as_json())}}}\n'
        )
    if options.confusion:
        _draw_confusion(options.confusion, summary)
    return summary


def _require_outputs(options: PredictOptions) -> None:
    require_output(options.csv_file, "--csv")
    require_output(options.confusion, "--confusion", PICTURES)
    if options.annotate:
        require_folder(options.annotate, f"--annotate {options.annotate}")
    if options.confusion == STDOUT and (options.json or options.csv_file in (None, STDOUT)):
        raise SettingsError("--confusion -: stdout has the predictions already; name a file")
    if options.csv_file == STDOUT and options.json:
        raise SettingsError("--csv - and --json: both would go to stdout; choose one")


def _with_usual_labels(options: PredictOptions) -> PredictOptions:
    """Take the labels of a bag from this robot's usual topic where the operator names none."""
    if options.path is None or options.label_topic or not is_bag(options.path):
        return options
    if options.usual_labels and has_topic(BagFrames(options.path), options.usual_labels):
        return replace(options, label_topic=options.usual_labels)
    if options.confusion:  # before the whole bag has been read for nothing
        raise SettingsError(
            f"--confusion needs true labels: name the topic of {options.path.name} that has them "
            "with --label-topic (`edge-agent inspect` lists its topics), or a CSV file"
        )
    return options


def _examples(
    options: PredictOptions, task: Task, damage: DamageLog, left_out: Counter[str]
) -> Iterator[Example]:
    source = None if options.source is None else options.source.renamed(task.former)
    if options.path is None:
        if source is None:
            raise SettingsError("name a bag, a data set or images to predict")
        yield from _own_examples(source, task.learned, left_out)
        return
    aliases = task.former if source is None else source.options.get("aliases", task.former)
    settings = LabelSettings(options.topic, options.label_topic, options.tolerance_s)
    for frame, label, boxes in labelled_frames(options.path, settings, damage):
        label = aliases.get(label, label)
        yield Example(raw=frame, key="", label=label or None, boxes=boxes)


def _own_examples(
    source: SourceSpec, labels: Sequence[str], left_out: Counter[str]
) -> Iterator[Example]:
    try:
        yield from source.examples(labels, left_out)
    except FleetError:
        raise
    except Exception as error:
        if source.name in EXAMPLE_SOURCES:
            raise
        reason = f"{type(error).__name__}: {error}"
        raise FrameError(f"examples.source {source.name!r} has failed: {reason}") from error


def _without_input(one: Predicted) -> Predicted:
    """Keep what is written and scored at the end, nothing of the picture."""
    nothing = Example(raw=None, key="")
    return one._replace(example=nothing, outputs=one.outputs if one.target else {})


def _target(workload: Workload, example: Example) -> Target | None:
    try:
        return workload.target(example)
    except FrameError:
        return None


def _summary(
    engine: Engine, found: Sequence[Predicted], damage: DamageLog, left_out: Mapping[str, int]
) -> PredictSummary:
    task, rows = engine.workload.task, [row for one in found for row in one.rows]
    pairs = ((r.truth, r.prediction.label) for r in rows if r.truth and r.prediction)
    times = [one.milliseconds for one in found]
    return PredictSummary(
        frames=len(found),
        labelled=sum(one.target is not None for one in found),
        measures=_measures(engine.workload, found),
        confusion=count_confusion(pairs, task.classes) if task.answer == "class" else None,
        model_version=engine.manifest.version,
        milliseconds_per_frame=round(median(times), 3) if times else None,
        skipped={loss.kind: loss.count for loss in damage.all()},
        losses=damage.sentence(),
        unknown_labels=dict(Counter(one.unknown for one in found if one.unknown).most_common()),
        left_out=dict(left_out),
    )


def _measures(workload: Workload, found: Sequence[Predicted]) -> Metrics:
    labelled = [(one.outputs, one.target.tensors) for one in found if one.target]
    if not labelled:
        return {}
    outputs, targets = (
        {name: np.stack([tensors[name] for tensors in rows]) for name in rows[0]}
        for rows in zip(*labelled, strict=True)
    )
    return workload.measure(outputs, targets)


def _row_writer(
    options: PredictOptions, answer: str, stdout: TextIO, files: ExitStack
) -> Callable[[Row], None]:
    """Return what takes one row after the other; `files` closes the CSV file."""
    if options.csv_file:
        stream = files.enter_context(output_file(options.csv_file))
        wrapper = TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        files.callback(wrapper.detach)  # `output_file` closes the stream itself
        text: TextIO = wrapper
    elif options.json:
        return lambda _: None
    else:
        text = stdout
    table = csv.writer(text, lineterminator="\n")
    head = iter([("file", "topic", "stamp_ns", *COLUMNS[answer])])

    def keep(row: Row) -> None:  # the head comes with the first one, not before an error
        table.writerows([*head, row.cells(answer).values()])

    return keep


def _with_progress(found: Iterator[Predicted], options: PredictOptions) -> Iterator[Predicted]:
    """Pass everything on, counting on stderr where a person is watching."""
    if not sys.stderr.isatty():
        yield from found
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(found, total=options.limit, description="frames")


def _annotate(folder: Path, index: int, one: Predicted) -> None:
    from edge_agent.data.drawing import annotated, encoded, with_boxes

    frame = one.example.raw
    if not isinstance(frame, FRAMES):
        raise SettingsError("--annotate draws on camera frames; these examples are none")
    boxes = [row.prediction for row in one.rows if row.prediction and row.prediction.box]
    picture = with_boxes(frame.decode(), boxes)
    for row in one.rows:
        if row.prediction and not row.prediction.box:
            title = row.prediction.label or row.prediction.text
            picture = annotated(picture, title, row.prediction.score, row.truth)
    stem = f"{PurePosixPath(frame.topic).stem}_{frame.stamp_ns}"
    folder.mkdir(parents=True, exist_ok=True)
    write_output(folder / f"{index:06d}_{stem}.jpg", encoded(picture, ".jpg"))


def _draw_confusion(path: Path, summary: PredictSummary) -> None:
    from edge_agent.data.drawing import confusion_picture, encoded

    if not summary.confusion or not summary.confusion.count:
        if unknown := ", ".join(summary.unknown_labels):
            raise FrameError(f"{path.name}: the model knows no label of these frames: {unknown}")
        raise FrameError(
            f"{path.name}: no frame has a label; name a label topic, or sort images into folders "
            "named by label"
        )
    picture = confusion_picture(summary.confusion, f"model {summary.model_version}")
    write_output(path, encoded(picture, path.suffix if path.suffix in PICTURES else ".png"))
