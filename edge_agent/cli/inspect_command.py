"""`edge-agent inspect`: what is in a bag, a video or a data set."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli.frame_commands import (
    LABELS,
    Json,
    damage_values,
    losses,
    progress_bar,
    require_no_loss,
)
from edge_agent.data.frames.source import source_path
from fleet_model.errors import FrameError, SettingsError, StorageError
from fleet_model.types import NS_PER_S

if TYPE_CHECKING:
    from edge_agent.data.inspection.inspect import Inspection, TopicReport
    from edge_agent.data.inspection.label_counts import LabelCounts
    from fleet_model.files.damage import Damage

SHOWN_LABELS = 50  # with the most frames; --json has all
AGENT_TOML = Path("agent.toml")
_WIDEST = 200  # columns of a table where no terminal limits it


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            parser=source_path,
            metavar="PATH",
            help="a bag folder, .mcap, .db3 or .bag; a video or a folder of them; a data set",
        ),
    ],
    label_topic: Annotated[
        str,
        typer.Option(
            *LABELS,
            help="labels to count: a topic of the bag, a CSV file, or a data set; default: as in "
            "agent.toml, else the bag's only label topic",
        ),
    ] = "",
    topic: Annotated[
        str, typer.Option(help="camera topic whose frames are counted; empty: the only one")
    ] = "",
    config: Annotated[
        Path,
        typer.Option("--config", "-c", "--dir", help="agent.toml of this robot, or its folder"),
    ] = AGENT_TOML,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="PNG to draw: pictures of a bag or video and a time line")
    ] = None,
    no_contact_sheet: Annotated[bool, typer.Option("--no-contact-sheet", hidden=True)] = False,
    json_output: Json = False,
) -> None:
    """Show what is in a bag, a video or a data set: topics, rates, gaps, damage, labels.

    Exit code 13 says that something is damaged, 12 that the contact sheet cannot be written.

    Example: edge-agent inspect monday.mcap --contact-sheet monday.png
    """
    from edge_agent.data.inspection.inspect import inspect as run
    from edge_agent.data.inspection.inspect import is_recording
    from fleet_model.command_line.output_file import STDOUT, require_output

    sheet = None if no_contact_sheet else contact_sheet  # the option of earlier versions
    if sheet == STDOUT:
        raise SettingsError("--contact-sheet -: stdout has the table already; name a PNG file")
    with suppress(StorageError):  # the table is worth reading the bag all the same
        require_output(sheet, "--contact-sheet", (".png",))
    labels, not_counted = _labels(path, label_topic, topic, config)
    inspection = None
    if is_recording(path):
        with progress_bar("messages", lambda: 0) as show:
            inspection = run(path, show)
    elif sheet:
        raise SettingsError(f"--contact-sheet {sheet}: only of bags and videos")
    damage = _damage(inspection, labels)
    unwritten = None
    if not json_output:
        lines = [*(_inspection_lines(inspection) if inspection else ())]
        typer.echo("\n".join([*lines, *_label_lines(labels, not_counted)]))
    try:
        if inspection and sheet:
            _write_sheet(inspection, sheet)
    except StorageError as error:  # the rest was worth reading the bag
        unwritten, sheet = error, None
    if json_output:
        topics = inspection.topics if inspection else ()
        values = {
            "topics": [_topic_values(topic) for topic in topics],
            **_label_values(labels, not_counted),
            "damage": damage_values(damage),
            "contact_sheet": str(sheet) if sheet else None,
        }
        typer.echo(json.dumps(values))
    elif sheet:
        typer.echo(f"contact sheet: {sheet}")
    if unwritten:
        lost = f"; losses: {losses(damage)}" if damage else ""
        raise StorageError(f"{unwritten}{lost}")
    require_no_loss(damage)


def _labels(
    path: Path, label_topic: str, topic: str, config: Path
) -> "tuple[LabelCounts | None, str]":
    """Return what is counted, or None and why nothing is: "" where there are no labels."""
    from edge_agent.data.frames.source import is_bag, is_live
    from edge_agent.data.inspection.label_counts import count_labels, topics_to_count
    from edge_agent.data.label_words import require_label_source
    from edge_agent.data.labels import LabelSettings

    if is_live(path) or not path.exists():
        return None, ""
    named = label_topic
    usual = "" if named else _usual_topic(config)
    if named:
        require_label_source((path,), named)
    elif topics := topics_to_count(path, usual):
        if len(topics) > 1:
            return None, f"labels may be in {', '.join(topics)}: name one with --label-topic"
        named = topics[0]
    elif is_bag(path):
        return None, f"no label topic {usual}, as agent.toml names it" if usual else ""
    with progress_bar("frames", lambda: 0) as show:
        try:
            return count_labels(path, LabelSettings(topic, named), show), ""
        except FrameError as error:
            if label_topic or topic or not is_bag(path):
                raise
            return None, f"labels are not counted: {error}"


def _usual_topic(config: Path) -> str:
    """Return the label topic of this robot's own bags, "" where no robot lives."""
    from edge_agent.robot.settings import load_settings, settings_file

    if config == AGENT_TOML and not settings_file(config).exists():
        return ""
    return load_settings(config).examples.label_topic


def _damage(inspection: "Inspection | None", labels: "LabelCounts | None") -> "tuple[Damage, ...]":
    """Return what is damaged, once: counting labels meets spoilt pictures again."""
    found = inspection.damage if inspection else ()
    known = {loss.kind for loss in found}
    more = labels.damage if labels else ()
    return (*found, *(loss for loss in more if loss.kind not in known))


def _label_values(labels: "LabelCounts | None", not_counted: str) -> dict[str, Any]:
    counted = labels and {
        "from": labels.source,
        "frames": labels.frames,
        "unlabelled": labels.unlabelled,
        "by_label": dict(labels.by_label),
        "boxes": dict(labels.boxes),
    }
    return {"labels": counted, "labels_not_counted": not_counted}


def _label_lines(labels: "LabelCounts | None", not_counted: str) -> Iterator[str]:
    if not_counted:
        yield not_counted
    if labels is None:
        return
    source = f" of {labels.source}" if labels.source else ""
    counts = [*_told(labels.by_label), f"{labels.unlabelled} without a label"]
    yield f"labels{source}, {labels.frames} frames: {', '.join(counts)}"
    if labels.boxes:
        boxes = ", ".join(_told(labels.boxes))
        yield f"boxes: {boxes}; a frame with several has the label of its largest"


def _told(counts: Mapping[str, int]) -> Iterator[str]:
    from fleet_model.errors import one_line

    shown = list(counts.items())
    yield from (f"{one_line(label)} {count}" for label, count in shown[:SHOWN_LABELS])
    if (more := len(shown) - SHOWN_LABELS) > 0:
        yield f"and {more} more labels"


def _write_sheet(inspection: "Inspection", file: Path) -> None:
    from edge_agent.data.inspection.contact_sheet import contact_sheet
    from edge_agent.data.pictures.encode import encode_png
    from fleet_model.command_line.output_file import write_output

    write_output(file, encode_png(contact_sheet(inspection)))


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


def _inspection_lines(inspection: "Inspection") -> Iterator[str]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fleet_model.command_line.table import records

    table = Table("topic", "type", box=None, pad_edge=False)
    for title in ("messages", "rate", "from (UTC)", "seconds", "gaps"):
        table.add_column(title, justify="right")
    for topic in inspection.topics:
        seconds = (topic.last_ns - topic.first_ns) / 1e9
        longest = max((gap.seconds for gap in topic.gaps), default=0.0)
        table.add_row(
            Text(topic.name),
            topic.type,
            str(topic.messages),
            f"{topic.rate_hz:.2f} Hz" if topic.rate_hz else "",
            _utc(topic.first_ns) if topic.messages else "",
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
            install = "; pip install 'fleetlearn[video]'" if topic.pictures == "video" else ""
            yield f"{topic.pictures}: {topic.name} is a {topic.type} ({topic.encoding}){install}"


def _utc(time_ns: int) -> str:
    """Return a time as people read it; --json has it in nanoseconds."""
    seconds, rest_ns = divmod(time_ns, NS_PER_S)
    try:
        told = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    except (OverflowError, ValueError):  # a stamp that is none
        return str(time_ns)
    return f"{told}.{rest_ns // 1_000_000:03}"
