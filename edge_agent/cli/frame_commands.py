"""The commands that read bags and data sets: edge-agent extract, edge-agent inspect."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.data.frames.source import source_path
from fleet_model.errors import LossError, SettingsError, StorageError

if TYPE_CHECKING:
    from edge_agent.data.extraction.extract import ExtractSummary
    from edge_agent.data.frames.damage import Damage
    from edge_agent.data.inspection.inspect import Inspection, TopicReport

Json = Annotated[bool, typer.Option("--json", help="print JSON to stdout")]
_WIDEST = 200  # columns of a table where no terminal limits it
_EVERY = 32  # frames between two looks at the progress bar
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
            "--label-topic",
            "--labels",
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
    with _progress_bar("frames", lambda: _frame_count(options.paths, topic)) as show:

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
    _require_no_loss(summary.damage)


def _bare_name(path: Path) -> str:
    """Return the name without the suffix of a storage file; a folder may have dots in its name."""
    from edge_agent.data.frames.source import bag_suffix, is_live, is_video, shown

    if is_live(path):
        return Path(shown(path)).name
    name = path.resolve().name
    suffix = path.suffix if is_video(path) else bag_suffix(name)
    return name[: len(name) - len(suffix)] if path.is_file() else name


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            parser=source_path,
            metavar="PATH",
            help="a bag folder, .mcap, .db3 or .bag; a video or a folder of them",
        ),
    ],
    contact_sheet: Annotated[
        Path | None, typer.Option(help="PNG with pictures; default: <bag name>.contact.png here")
    ] = None,
    no_contact_sheet: Annotated[bool, typer.Option("--no-contact-sheet", help="draw none")] = False,
    json_output: Json = False,
) -> None:
    """Show what is in a bag or a video: topics, types, rates, gaps, damage; draw a contact sheet.

    Exit code 13 says that something is damaged, 12 that the contact sheet cannot be written.
    """
    from edge_agent.data.inspection.inspect import inspect as run
    from fleet_model.command_line.output_file import STDOUT, require_output

    if contact_sheet == STDOUT:
        raise SettingsError("--contact-sheet -: stdout has the table already; name a PNG file")
    with suppress(StorageError):  # the table is worth reading the bag all the same
        require_output(None if no_contact_sheet else contact_sheet, "--contact-sheet", (".png",))
    with _progress_bar("messages", lambda: 0) as show:
        inspection = run(path, show)
    sheet = None if no_contact_sheet else contact_sheet or Path(f"{inspection.name}.contact.png")
    unwritten: StorageError | None = None
    if not json_output:
        typer.echo("\n".join(_inspection_lines(inspection)))
    try:
        if sheet:
            _write_sheet(inspection, sheet)
    except StorageError as error:  # the rest was worth reading the bag
        unwritten, sheet = error, None
    if json_output:
        values = {
            "topics": [_topic_values(topic) for topic in inspection.topics],
            "damage": _damage_values(inspection.damage),
            "contact_sheet": str(sheet) if sheet else None,
        }
        typer.echo(json.dumps(values))
    elif sheet:
        typer.echo(f"contact sheet: {sheet}")
    if unwritten:
        losses = f"; losses: {_losses(inspection.damage)}" if inspection.damage else ""
        raise StorageError(f"{unwritten}{losses}")
    _require_no_loss(inspection.damage)


def _write_sheet(inspection: "Inspection", file: Path) -> None:
    from edge_agent.data.inspection.contact_sheet import contact_sheet
    from edge_agent.data.pictures.encode import encode_png
    from fleet_model.command_line.output_file import write_output

    write_output(file, encode_png(contact_sheet(inspection)))


def _require_no_loss(damage: "tuple[Damage, ...]") -> None:
    if damage:
        raise LossError(f"done, with losses: {_losses(damage)}")


def _losses(damage: "tuple[Damage, ...]") -> str:
    return "; ".join(f"{loss.count} x {loss.kind}, first {loss.begins}" for loss in damage)


def _summary_values(summary: "ExtractSummary") -> dict[str, Any]:
    return {
        "frames_seen": summary.frames_seen,
        "frames_written": summary.frames_written,
        "frames_labelled": summary.frames_labelled,
        "already_there": summary.already_there,
        "skipped": summary.skipped,
        "damage": _damage_values(summary.damage),
    }


def _damage_values(damage: "tuple[Damage, ...]") -> list[dict[str, Any]]:
    return [{"kind": d.kind, "count": d.count, "begins": d.begins} for d in damage]


def _topic_values(topic: "TopicReport") -> dict[str, Any]:
    gaps = [{"begins_ns": gap.begins_ns, "seconds": gap.seconds} for gap in topic.gaps]
    return {
        "name": topic.name,
        "type": topic.type,
        "encoding": topic.encoding,
        "pictures": topic.pictures,
        "messages": topic.messages,
        "rate_hz": topic.rate_hz,
        "first_ns": topic.first_ns,
        "last_ns": topic.last_ns,
        "gaps": gaps,
    }


def _summary_lines(summary: "ExtractSummary", out: Path) -> str:
    lines = [
        f"{summary.frames_written} of {summary.frames_seen} frames in {out}, "
        f"{summary.frames_labelled} with a label"
    ]
    if summary.already_there:
        lines.append(f"  {summary.already_there} were already there")
    lines += [f"  {count} left out: {reason}" for reason, count in summary.skipped.items()]
    return "\n".join(lines)


def _inspection_lines(inspection: "Inspection") -> Iterator[str]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fleet_model.command_line.table import records

    table = Table("topic", "type", box=None, pad_edge=False)
    for title in ("messages", "rate", "from (ns)", "seconds", "gaps"):
        table.add_column(title, justify="right")
    for topic in inspection.topics:
        seconds = (topic.last_ns - topic.first_ns) / 1e9
        longest = max((gap.seconds for gap in topic.gaps), default=0.0)
        table.add_row(
            Text(topic.name),
            topic.type,
            str(topic.messages),
            f"{topic.rate_hz:.2f} Hz" if topic.rate_hz else "",
            str(topic.first_ns) if topic.messages else "",
            f"{seconds:.1f}" if topic.messages else "",
            f"{len(topic.gaps)}, longest {longest:.2f} s" if topic.gaps else "",
        )
    console = Console(no_color=True, highlight=False)
    width = console.width if console.is_terminal else _WIDEST
    console.width = _WIDEST
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    fits = max(map(len, lines)) <= width
    yield from lines if fits else (line.plain for line in records(table))
    drawn = {camera.topic.name for camera in inspection.cameras}
    for topic in inspection.topics:
        if topic.pictures and topic.messages and topic.name not in drawn:
            what = f"{topic.name} is a {topic.type} ({topic.encoding})"
            install = "; pip install 'fleetlearn[video]'" if topic.pictures == "video" else ""
            yield f"{topic.pictures}: {what}, without pictures in the contact sheet{install}"


def _frame_count(paths: tuple[Path, ...], topic: str) -> int:
    """Return how many frames there are by the indexes of bags and data sets; 0: one is unknown."""
    from edge_agent.data.frames.bag import BagFrames
    from edge_agent.data.frames.damage import DamageLog
    from edge_agent.data.frames.source import is_bag, is_live
    from edge_agent.data.labels import LabelSettings, labelled_entries
    from fleet_model.errors import FrameError

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
def _progress_bar(unit: str, count: Callable[[], int]) -> Iterator[Callable[..., None]]:
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
