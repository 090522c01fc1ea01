"""Run a published model over a bag, a data set or a table; write CSV or JSON, pictures, scores."""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple, TextIO

import numpy as np

from edge_agent.data.frames.source import is_live, shown
from edge_agent.data.label_formats.coco.results import CocoResults
from edge_agent.data.labels import (
    LabelSettings,
    labelled_frames,
)
from edge_agent.examples.source import EXAMPLE_SOURCES, SourceSpec
from edge_agent.examples.texts.reading import TextReading
from edge_agent.models.predict_options import (
    PredictOptions,
    require_labels,
    require_outputs,
    require_suited,
    with_usual_labels,
)
from edge_agent.models.prediction_files import (
    annotate,
    draw_confusion,
    draw_curves,
    frame_of,
    row_writer,
    write_coco,
)
from edge_agent.models.predictions import PredictSummary, Row, columns_of, rows_of
from fleet_model.bundle import Task
from fleet_model.confusion.counts import count_confusion
from fleet_model.engine import Engine, open_engine
from fleet_model.errors import FleetError, FrameError, SettingsError
from fleet_model.files.damage import DamageLog
from fleet_model.tables.columns import without_labels
from fleet_model.types import Example, Instruction, Metrics, Prediction, Target, Tensors
from fleet_model.workload import Details, Workload, sure, takes_instructions

log = logging.getLogger(__name__)


class Predicted(NamedTuple):
    """An input, what the engine says and how long that took."""

    example: Example
    found: Sequence[Prediction]
    rows: Sequence[Row]  # of what is sure enough to be shown
    outputs: Tensors
    target: Target | None  # None: the truth is not known
    milliseconds: float  # decoding, encoding, model
    unknown: str = ""  # a label that somebody gave and the model lacks


def predict(
    engine: Engine, examples: Iterable[Example], damage: DamageLog, min_score: float | None = None
) -> Iterator[Predicted]:
    """Yield what the engine says of every input that can be read.

    Args:
        engine: of any workload.
        examples: a truth that the workload does not know is taken as none.
        damage: gets the inputs that cannot be decoded.
        min_score: boxes with a lower one have no row; None: as the workload says.
    """
    workload = engine.workload
    for example in examples:
        start = time.perf_counter()
        try:
            answer = engine.answer(example.raw)
        except FrameError as error:
            damage.add(error.reason, str(error))
            log.info("%s", error)
            continue
        milliseconds = (time.perf_counter() - start) * 1e3
        truth = example.label if example.label in workload.task.learned else None
        if isinstance(example.raw, Instruction):
            truth = example.raw.answer
        yield Predicted(
            example,
            answer.predictions,
            rows_of(example, sure(workload, answer.predictions, min_score), truth or ""),
            answer.outputs,
            _target(workload, example),
            milliseconds,
            _unknown(workload.task, example),
        )


def _unknown(task: Task, example: Example) -> str:
    """Return a label that somebody gave and the model lacks; "" without one."""
    given = [example.label] if task.learned else [box.label for box in example.boxes]
    others = (label for label in given if label and label not in task.classes)
    return next(others, "") if task.classes else ""


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
        FrameError: not one frame can be read, or a chart is wanted of unlabelled ones.
        BundleError: the bundle is damaged or has no such precision.
        SettingsError: the labels named are neither a file nor a topic of a bag, or the workload
            does not have what an output is made of, or an output is named that cannot be.
        StorageError: an output cannot be written; found before the work where that can be known.
    """
    require_outputs(options)
    require_labels(options)
    engine = open_engine(options.bundle, options.precision)
    task = engine.workload.task
    require_suited(options, engine.workload)
    coco = CocoResults(task.classes) if options.coco else None
    damage, left_out = DamageLog(), Counter[str]()
    task = task.model_copy(update={"former": engine.manifest.described_task.former})
    answers = takes_instructions(engine.workload)
    texts = _texts(options, task, answers=answers)
    if texts:
        examples = texts.examples(damage)
    else:
        examples = _examples(with_usual_labels(options), task, damage, left_out, answers=answers)
    predicted = predict(engine, examples, damage, options.min_score)
    columns = columns_of(task, texts=options.of_texts)
    found = _written(predicted, options, columns, None if options.json else stdout, coco, damage)
    summary = _summary(engine, found, damage, left_out)
    if options.of_texts:
        summary = replace(summary, inputs="texts", notes=texts.notes if texts else ())
    if options.json:
        cells = [row.cells(columns) for one in found for row in one.rows]
        rows = ",\n".join(map(json.dumps, cells))  # one a line: as long as a CSV of them
        stdout.write(
            f'{{"predictions": [\n{rows}\n], "summary": {json.dumps(summary.as_json())}}}\n'
        )
    if coco and options.coco:
        write_coco(options.coco, coco)
    for chart, draw in ((options.confusion, draw_confusion), (options.curves, draw_curves)):
        if chart:
            draw(chart, summary)
    return summary


def _written(
    answers: Iterator[Predicted],
    options: PredictOptions,
    columns: Sequence[str],
    stdout: TextIO | None,
    coco: CocoResults | None,
    damage: DamageLog,
) -> list[Predicted]:
    """Write rows and pictures while the model answers; return what is scored at the end."""
    found = list[Predicted]()
    with ExitStack() as files:
        keep = row_writer(options.csv_file, stdout, columns, files)
        for index, one in enumerate(_with_progress(islice(answers, options.limit), options)):
            example = one.example
            for row in one.rows:
                keep(row)
            if options.annotate:
                looked = "x0" in columns and example.seen
                truth = example.boxes if looked else None
                annotate(options.annotate, index, example, one.rows, truth)
            if coco:
                frame, size = frame_of(example, "--coco")
                coco.add(frame, size, one.found, example.boxes, seen=example.seen)
            found.append(_without_input(one, scores=options.json))
        _require_frames(options, found, damage)
    return found


def _require_frames(options: PredictOptions, found: Sequence[Predicted], damage: DamageLog) -> None:
    """Raise FrameError without a frame, unless nothing has come live or this robot has none."""
    if found:
        return
    name = shown(options.path) if options.path else "the examples of this robot"
    if damage:
        one = "text" if options.of_texts else "frame"
        raise FrameError(f"{name}: no {one} can be read: {damage.sentence()}")
    if options.path and not is_live(options.path):
        raise FrameError(f"{name}: holds no frame; `edge-agent inspect` shows what it holds")


def _texts(options: PredictOptions, task: Task, *, answers: bool) -> TextReading | None:
    """Open a table; None where the path is none.

    Raises:
        FrameError: nothing can be read, or labels are needed and it is not clear which they are.
    """
    if options.path is None or not options.of_texts:
        return None
    source = None if options.source is None else options.source.renamed(task.former)
    aliases = task.former if source is None else source.options.get("aliases", task.former)
    texts = TextReading(
        options.path, options.columns, task.learned, aliases, options.encoding, answers=answers
    )
    if (options.confusion or options.curves) and not texts.columns.label:
        raise without_labels(texts.columns, shown(options.path))
    return texts


def _examples(
    options: PredictOptions,
    task: Task,
    damage: DamageLog,
    left_out: Counter[str],
    *,
    answers: bool,
) -> Iterator[Example]:
    source = None if options.source is None else options.source.renamed(task.former)
    if options.path is None:
        if source is None:
            raise SettingsError("name a bag, a data set or images to predict")
        yield from _own_examples(source, task, left_out, answers=answers)
        return
    aliases = task.former if source is None else source.options.get("aliases", task.former)
    settings = LabelSettings(options.topic, options.label_topic, options.tolerance_s)
    for frame, label, told, seen in labelled_frames(options.path, settings, damage):
        label = aliases.get(label, label)
        boxes = tuple(replace(box, label=aliases.get(box.label, box.label)) for box in told)
        yield Example(raw=frame, key="", label=label or None, boxes=boxes, seen=seen)


def _own_examples(
    source: SourceSpec, task: Task, left_out: Counter[str], *, answers: bool
) -> Iterator[Example]:
    try:
        boxes = task.answer == "boxes"
        yield from source.examples(task.classes, left_out, boxes=boxes, answers=answers)
    except FleetError:
        raise
    except Exception as error:
        if source.name in EXAMPLE_SOURCES:
            raise
        reason = f"{type(error).__name__}: {error}"
        raise FrameError(f"examples.source {source.name!r} has failed: {reason}") from error


def _without_input(one: Predicted, *, scores: bool) -> Predicted:
    """Keep what is written and scored at the end, nothing of the input."""
    nothing = Example(raw=None, key="")
    rows = one.rows if scores else [replace(row, scores={}) for row in one.rows]
    outputs = one.outputs if one.target else {}
    return one._replace(example=nothing, found=(), rows=rows, outputs=outputs)


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
    own = getattr(engine, "personal", None)  # an engine of somebody else's has none
    measures, details = _measured(engine.workload, found)
    return PredictSummary(
        frames=len(found),
        labelled=sum(one.target is not None for one in found),
        measures=measures,
        details=details,
        confusion=count_confusion(pairs, task.classes) if task.answer == "class" else None,
        model_version=engine.manifest.version,
        milliseconds_per_frame=round(median(times), 3) if times else None,
        skipped={loss.kind: loss.count for loss in damage.all()},
        losses=damage.sentence(),
        unknown_labels=dict(Counter(one.unknown for one in found if one.unknown).most_common()),
        left_out=dict(left_out),
        runs=own.words if own else "",
    )


def _measured(workload: Workload, found: Sequence[Predicted]) -> tuple[Metrics, Details | None]:
    labelled = [(one.outputs, one.target.tensors) for one in found if one.target]
    if not labelled:
        return {}, None
    outputs, targets = (
        {name: np.stack([tensors[name] for tensors in rows]) for name in rows[0]}
        for rows in zip(*labelled, strict=True)
    )
    details: Callable[[Tensors, Tensors], Details] | None = getattr(workload, "details", None)
    measures = workload.measure(outputs, targets)
    return measures, details(outputs, targets) if details else None


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
