"""`edge-agent extract`, and what it shares with `inspect`: progress and losses."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.data.frames.source import source_path
from fleet_model.errors import LossError

if TYPE_CHECKING:
    from edge_agent.data.extraction.extract import ExtractSummary
    from fleet_model.files.damage import Damage

LABELS = ("--label-topic", "--labels")  # of recordings, in every command
Json = Annotated[bool, typer.Option("--json", help="print JSON to stdout")]
_EVERY = 32  # frames between two looks at the progress bar
_SHOWN_BAGS = 20  # by name; --json has all
_LONGEST_COUNT_S = 2.0  # nobody waits longer to know how long it will take


def extract(
    paths: Annotated[
        list[Path],
        typer.Argument(
            parser=source_path,
            metavar="PATHS...",
            help="bags, videos, data sets to convert; or one live source until Ctrl-C or --end: "
            "ros:/topic, rtsp://host/stream, /dev/video0",
        ),
    ],
    topic: Annotated[str, typer.Option(help="camera topic; empty: the only one")] = "",
    out: Annotated[
        Path | None, typer.Option(help="folder of the data set; default: <first name>.frames")
    ] = None,
    rate_hz: Annotated[
        float, typer.Option(min=0, help="at most this many frames per second of bag time")
    ] = 0,
    every_n: Annotated[int, typer.Option(min=1, help="only every n-th frame")] = 1,
    start: Annotated[
        str, typer.Option(help="bag time: seconds from the first frame, an ISO time (UTC), or ns")
    ] = "",
    end: Annotated[
        str, typer.Option(help="bag time, as --start; this moment is not included")
    ] = "",
    labels: Annotated[
        str,
        typer.Option(
            *LABELS,
            help="label topic of the bag, a CSV file, or a data set with stamps",
        ),
    ] = "",
    tolerance: Annotated[
        float | None, typer.Option(help="seconds between a frame and its label, at most")
    ] = None,
    data_format: Annotated[
        str, typer.Option("--format", help="folder, yolo, coco or tfds")
    ] = "folder",
    image_format: Annotated[
        str, typer.Option(help="keep (JPEG stays as sent, raw becomes PNG), jpeg or png")
    ] = "keep",
    min_sharpness: Annotated[
        float | None, typer.Option(help="drop blurred frames, e.g. 50; 0 only measures")
    ] = None,
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="drop frames nearly the same as the last one")
    ] = False,
    json_output: Json = False,
) -> None:
    """Turn bags into a data set of images; after an interruption the same command continues.

    Exit code 13 says that something was damaged and is left out.

    Example: edge-agent extract monday.mcap --labels /detections --format yolo --out set
    """
    from edge_agent.data.extraction.extract import ExtractOptions, Progress
    from edge_agent.data.extraction.extract import extract as run
    from edge_agent.data.extraction.selection import Selection, parse_moment
    from edge_agent.data.label_words import topics_not_named
    from edge_agent.data.labels import TOLERANCE_S, LabelSettings

    selection = Selection(
        parse_moment(start, "--start"), parse_moment(end, "--end"), every_n, rate_hz
    )
    options = ExtractOptions(
        paths=tuple(paths),
        out=out or Path(f"{_bare_name(paths[0])}.frames"),
        labels=LabelSettings(topic, labels, TOLERANCE_S if tolerance is None else tolerance),
        selection=selection,
        format=data_format,
        image_format=image_format,
        min_sharpness=min_sharpness,
        drop_duplicates=drop_duplicates,
    )
    with progress_bar("frames", lambda: _frame_count(options.paths, topic)) as show:

        def report(progress: Progress) -> None:
            show(progress.seen)

        summary = run(options, report)
    if json_output:
        typer.echo(json.dumps({"out": options.out.name, **_summary_values(summary)}))
    else:
        typer.echo(_summary_lines(summary, options.out))
        if not (labels or summary.frames_labelled) and (topics := topics_not_named(paths)):
            told = f"labels may be in {', '.join(topics)}: add --labels {topics[0]}"
            typer.echo(f"edge-agent: {told}", err=True)
    require_no_loss(summary.damage)


def _bare_name(path: Path) -> str:
    """Return the name without the suffix of a storage file; a folder may have dots in its name."""
    from edge_agent.data.frames.source import bag_suffix, is_live, is_video, shown

    if is_live(path):
        return Path(shown(path)).name
    name = path.resolve().name
    suffix = path.suffix if is_video(path) else bag_suffix(name)
    return name[: len(name) - len(suffix)] if path.is_file() else name


def require_no_loss(damage: "tuple[Damage, ...]") -> None:
    """Raise LossError if there is damage: the command ends with exit code 13."""
    if damage:
        raise LossError(f"done, with losses: {losses(damage)}")


def losses(damage: "tuple[Damage, ...]") -> str:
    """Return the damage in one line."""
    return "; ".join(f"{loss.count} x {loss.kind}, first {loss.begins}" for loss in damage)


def _summary_values(summary: "ExtractSummary") -> dict[str, Any]:
    return {
        "frames_seen": summary.frames_seen,
        "frames_written": summary.frames_written,
        "frames_labelled": summary.frames_labelled,
        "already_there": summary.already_there,
        "skipped": summary.skipped,
        "left_out": summary.left_out,
        "damage": damage_values(summary.damage),
    }


def damage_values(damage: "tuple[Damage, ...]") -> list[dict[str, Any]]:
    """Return JSON values."""
    return [{"kind": d.kind, "count": d.count, "begins": d.begins} for d in damage]


def _summary_lines(summary: "ExtractSummary", out: Path) -> str:
    lines = [
        f"{summary.frames_written} of {summary.frames_seen} frames in {out}, "
        f"{summary.frames_labelled} with a label"
    ]
    if summary.already_there:
        lines.append(f"  {summary.already_there} were already there")
    lines += [f"  {count} left out: {reason}" for reason, count in summary.skipped.items()]
    if names := summary.left_out:
        more = f", and {len(names) - _SHOWN_BAGS} more" if len(names) > _SHOWN_BAGS else ""
        lines.append(f"  nothing of {', '.join(names[:_SHOWN_BAGS])}{more}")
    return "\n".join(lines)


def _frame_count(paths: tuple[Path, ...], topic: str) -> int:
    """Return how many frames there are by the indexes of bags and data sets; 0: one is unknown."""
    from edge_agent.data.frames.bag import BagFrames
    from edge_agent.data.frames.source import is_bag, is_live
    from edge_agent.data.labels import LabelSettings, labelled_entries
    from fleet_model.errors import FrameError
    from fleet_model.files.damage import DamageLog

    def count(path: Path) -> int:
        if is_live(path):
            return 0
        if is_bag(path):
            return BagFrames(path, topic).choose_topic().messages
        frames = 0
        for _ in labelled_entries(path, LabelSettings(topic), DamageLog()):  # reads no picture
            if time.monotonic() > until:
                return 0  # records without a manifest are read whole to be listed
            frames += 1
        return frames

    until = time.monotonic() + _LONGEST_COUNT_S
    try:
        counts = [count(path) for path in paths]
    except (FrameError, OSError):
        return 0
    return sum(counts) if all(counts) else 0


@contextmanager
def progress_bar(unit: str, count: Callable[[], int]) -> Iterator[Callable[..., None]]:
    """Give a function that takes (done, all there are): on a terminal it moves a bar on stderr.

    `count` says how many there are before the first call; 0 is unknown.
    """
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} " + unit + "/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=count() or None, rate="-")

        shown = 0

        def show(done: int, total: int | None = None) -> None:
            nonlocal shown
            if done - shown < _EVERY:  # where frames are left out, most numbers never come
                return
            shown = done
            seconds = bar.tasks[0].elapsed or 0.0
            rate = f"{done / seconds:.0f}" if seconds else "-"
            bar.update(task, completed=done, total=total, rate=rate)

        yield show
