"""Run a published model over a bag or a data set; write CSV or JSON, pictures, scores."""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple, TextIO

import numpy as np

from edge_agent.data.confusion import count_confusion
from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.frames.source import is_bag, is_live, shown
from edge_agent.data.label_formats.coco.results import CocoResults, pictures_file
from edge_agent.data.label_formats.label_topic import has_topic
from edge_agent.data.label_words import require_label_source
from edge_agent.data.labels import (
    TOLERANCE_S,
    LabelSettings,
    labelled_frames,
)
from edge_agent.examples.source import EXAMPLE_SOURCES, SourceSpec
from edge_agent.models.prediction_files import (
    PICTURES,
    annotate,
    draw_confusion,
    draw_curves,
    frame_of,
    row_writer,
    write_coco,
)
from edge_agent.models.predictions import PredictSummary, Row, rows_of
from fleet_model.bundle import Task
from fleet_model.command_line.output_file import STDOUT, require_folder, require_output
from fleet_model.engine import Engine, open_engine
from fleet_model.errors import FleetError, FrameError, SettingsError
from fleet_model.types import Example, Metrics, Prediction, Target, Tensors
from fleet_model.workload import Details, Workload, sure

log = logging.getLogger(__name__)


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
    curves: Path | None = None  # PNG
    coco: Path | None = None  # results as JSON; a second file beside it says which picture is which
    min_score: float | None = None  # of boxes that are listed and drawn; None: the workload's
    limit: int | None = None  # frames


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
    _require_outputs(options)
    if options.path is not None:
        require_label_source((options.path,), options.label_topic)
    engine = open_engine(options.bundle, options.precision)
    task = engine.workload.task
    _require_suited(options, engine.workload)
    coco = CocoResults(task.classes) if options.coco else None
    damage, found, left_out = DamageLog(), list[Predicted](), Counter[str]()
    task = task.model_copy(update={"former": engine.manifest.described_task.former})
    examples = _examples(_with_usual_labels(options), task, damage, left_out)
    with ExitStack() as files:
        rows_to = None if options.json else stdout
        keep = row_writer(options.csv_file, rows_to, task.answer, files)
        answers = predict(engine, examples, damage, options.min_score)
        for index, one in enumerate(_with_progress(islice(answers, options.limit), options)):
            for row in one.rows:
                keep(row)
            if options.annotate:
                looked = task.answer == "boxes" and one.example.seen
                truth = one.example.boxes if looked else None
                annotate(options.annotate, index, one.example, one.rows, truth)
            if coco:
                frame, size = frame_of(one.example, "--coco")
                example = one.example
                coco.add(frame, size, one.found, example.boxes, seen=example.seen)
            found.append(_without_input(one))
        _require_frames(options, found, damage)
    summary = _summary(engine, found, damage, left_out)
    if options.json:
        cells = [row.cells(task.answer) for one in found for row in one.rows]
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


def _require_frames(options: PredictOptions, found: Sequence[Predicted], damage: DamageLog) -> None:
    """Raise FrameError without a frame, unless nothing has come live or this robot has none."""
    if found:
        return
    name = shown(options.path) if options.path else "the examples of this robot"
    if damage:
        raise FrameError(f"{name}: no frame can be read: {damage.sentence()}")
    if options.path and not is_live(options.path):
        raise FrameError(f"{name}: holds no frame; `edge-agent inspect` shows what it holds")


def _require_outputs(options: PredictOptions) -> None:
    require_output(options.csv_file, "--csv")
    for picture, name in ((options.confusion, "--confusion"), (options.curves, "--curves")):
        require_output(picture, name, PICTURES)
        if picture == STDOUT and (options.json or options.csv_file in (None, STDOUT)):
            raise SettingsError(f"{name} -: stdout has the predictions already; name a file")
    if options.coco == STDOUT:
        raise SettingsError("--coco -: there are two files; name the first, e.g. results.json")
    require_output(options.coco, "--coco", (".json",))
    require_output(options.coco and pictures_file(options.coco), "--coco")
    if options.annotate:
        require_folder(options.annotate, f"--annotate {options.annotate}")
    if options.csv_file == STDOUT and options.json:
        raise SettingsError("--csv - and --json: both would go to stdout; choose one")


def _require_suited(options: PredictOptions, workload: Workload) -> None:
    """Raise SettingsError before the work for an output that such a model cannot have."""
    answer = workload.task.answer
    if options.confusion and answer != "class":
        raise SettingsError(
            f"--confusion needs a model that answers classes; this one answers {answer}"
        )
    if options.coco and answer != "boxes":
        raise SettingsError(f"--coco needs a model that answers boxes; this one answers {answer}")
    if options.curves and not hasattr(workload, "details"):
        raise SettingsError(
            f"--curves: a model that answers {answer} has none; leave the option out"
        )


def _with_usual_labels(options: PredictOptions) -> PredictOptions:
    """Take the labels of a bag from this robot's usual topic where the operator names none."""
    if options.path is None or options.label_topic or not is_bag(options.path):
        return options
    if options.usual_labels and has_topic(BagFrames(options.path), options.usual_labels):
        return replace(options, label_topic=options.usual_labels)
    if options.confusion or options.curves:  # before the whole bag has been read for nothing
        name = "--confusion" if options.confusion else "--curves"
        raise SettingsError(
            f"{name} needs true labels: name the topic of {options.path.name} that has them "
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
        yield from _own_examples(source, task, left_out)
        return
    aliases = task.former if source is None else source.options.get("aliases", task.former)
    settings = LabelSettings(options.topic, options.label_topic, options.tolerance_s)
    for frame, label, told, seen in labelled_frames(options.path, settings, damage):
        label = aliases.get(label, label)
        boxes = tuple(replace(box, label=aliases.get(box.label, box.label)) for box in told)
        yield Example(raw=frame, key="", label=label or None, boxes=boxes, seen=seen)


def _own_examples(source: SourceSpec, task: Task, left_out: Counter[str]) -> Iterator[Example]:
    try:
        yield from source.examples(task.classes, left_out, boxes=task.answer == "boxes")
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
    return one._replace(example=nothing, found=(), outputs=one.outputs if one.target else {})


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
