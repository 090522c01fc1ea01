"""The command that publishes a detector of another tool."""

import json
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import Directory, Json, say, with_steps
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from cloud_server.importing import Importable
    from cloud_server.models.imported.engine_file import Wish
    from cloud_server.state.directory import ServerDirectory


class ColorOrder(str, Enum):
    """Which channel of a picture comes first."""

    rgb = "rgb"
    bgr = "bgr"


class FrameFit(str, Enum):
    """Where a frame lies in the input."""

    letterbox = "letterbox"
    corner = "corner"
    stretch = "stretch"


class Units(str, Enum):
    """What the coordinates of boxes are."""

    pixels = "pixels"
    shares = "shares"


def import_engine(
    directory: Directory,
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".tflite or .onnx")],
    labels: Annotated[
        str,
        typer.Option(help="the file's classes in order: a,b,c or a file (default: the fleet's)"),
    ] = "",
    layout: Annotated[
        str | None,
        typer.Option(help="what the outputs mean, as yolox or rf-detr (default: detected)"),
    ] = None,
    mapped: Annotated[
        list[str] | None, typer.Option("--map", help="CLASS=LABEL, where names differ")
    ] = None,
    drop_others: Annotated[
        bool, typer.Option("--drop-others", help="leave out classes that are no label")
    ] = False,
    without: Annotated[str, typer.Option(help="labels that the file cannot find: a,b")] = "",
    sample: Annotated[
        list[Path] | None, typer.Option(help="picture, or folder of pictures, to check with")
    ] = None,
    channel: Annotated[str, typer.Option(help="whose robots (default: publish.channel)")] = "",
    input_size: Annotated[
        str, typer.Option(help="of a file that takes several: 640 or 640x384 (width x height)")
    ] = "",
    color: Annotated[ColorOrder | None, typer.Option(help="default: as the layout has it")] = None,
    mean: Annotated[str, typer.Option(help="taken from pixels 0..255: 127.5 or 124,116,104")] = "",
    std: Annotated[str, typer.Option(help="divides pixels after that: 255 or 58,57,57")] = "",
    fit: Annotated[
        FrameFit | None,
        typer.Option(help="where a frame lies in the input (default: the layout's)"),
    ] = None,
    boxes: Annotated[
        Units | None,
        typer.Option(help="pixels of the input, or shares 0..1 (default: the layout's)"),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(min=0.01, max=1, help="above it the less sure of two boxes goes; 1: none"),
    ] = None,
    outputs: Annotated[
        str, typer.Option(help="where names mislead: scores=NAME,classes=NAME")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check it, publish nothing")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="publish nothing, and write a bundle here: for `edge-agent label`"),
    ] = None,
    json_output: Json = False,
) -> None:
    """Publish a detector that another tool has trained; robots run it, and nobody trains it.

    It is checked first: it must run, answer pictures with boxes, and find the fleet's labels.
    Robots try it as any new version. Rounds go on with the fleet's own model.
    """
    from cloud_server.importing import ImportPlan, examine, publish_imported, write_out
    from cloud_server.models.imported.labels import read_classes, read_map
    from cloud_server.state.settings import load_settings

    if out and dry_run:
        raise SettingsError("--out writes a bundle and --dry-run nothing: choose one")
    server_dir = of_channel(directory, channel)
    settings = load_settings(server_dir.settings).publish
    settings = settings.model_copy(update={"channel": channel or settings.channel})
    plan = ImportPlan(
        file=file,
        classes=read_classes(labels) if labels else (),
        renamed=read_map(mapped or ()),
        without=[one.strip() for one in without.split(",") if one.strip()],
        drop_others=drop_others,
        wish=_wish(layout, input_size, color, mean, std, fit, boxes, overlap, outputs),
        samples=sample or (),
    )
    with with_steps("import") as tell:
        made = examine(server_dir, plan, tell)
        number = None if dry_run or out else publish_imported(server_dir, settings, made)
        if out:
            write_out(server_dir, made, out)
    for doubt in made.checked.doubts:
        say(f"WARNING: {doubt}")
    if json_output:
        typer.echo(json.dumps(_as_json(made, number, settings.channel)))
        return
    for line in _told(made):
        typer.echo(line)
    if out:
        typer.echo(
            f"{out}: a bundle, and nothing is published; on a robot, `edge-agent label --teacher "
            f"{out}` labels frames with it"
        )
        return
    if number is None:
        typer.echo("nothing is published; without --dry-run it is")
        return
    typer.echo(
        f"channel {settings.channel} offers version {number}: robots try it, and run it if it is "
        "no worse there than what they have. Nobody trains it: rounds go on with the fleet's own "
        "model. "
        f"`cloud-server models rollback {directory}` takes it back"
    )


def of_channel(directory: Path, channel: str) -> "ServerDirectory":
    """Return the directory with what is trained for the channel, or else by its server."""
    from cloud_server.state.directory import ServerDirectory

    server_dir = ServerDirectory(directory)
    server_dir.require()
    own = server_dir.of(channel) if channel else server_dir
    return own if own.lineage else server_dir.trained()


def _wish(
    layout: str | None,
    input_size: str,
    color: ColorOrder | None,
    mean: str,
    std: str,
    fit: FrameFit | None,
    boxes: Units | None,
    overlap: float | None,
    outputs: str,
) -> "Wish":
    from cloud_server.models.imported.engine_file import Wish

    return Wish(
        layout=layout,
        size=_size(input_size) if input_size else None,
        color=None if color is None else color.value,
        mean=_three("--mean", mean) if mean else None,
        std=_three("--std", std, positive=True) if std else None,
        fit=None if fit is None else fit.value,
        shares=None if boxes is None else boxes is Units.shares,
        overlap=overlap,
        outputs=_pairs(outputs),
    )


def _size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(one.isdecimal() and 32 <= int(one) <= 4096 for one in sides):
        raise SettingsError(
            f"--input-size {text[:40]}: expected pixels from 32 to 4096, as 640 or 640x384"
        )
    return int(sides[0]), int(sides[-1])


def _three(flag: str, text: str, *, positive: bool = False) -> tuple[float, float, float]:
    try:
        values = [float(one) for one in text.split(",")]
    except ValueError:
        values = []
    right = len(values) in (1, 3) and all(abs(one) < 1e6 for one in values)
    if not right or (positive and min(values) <= 0):
        kind = "above 0" if positive else "of pixels 0..255"
        raise SettingsError(f"{flag} {text[:40]}: expected one number {kind}, or three")
    return values[0], values[len(values) // 2], values[-1]


def _pairs(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, text.split(",")):
        role, equals, name = (one.strip() for one in pair.partition("="))
        if not role or not equals or not name:
            raise SettingsError(f"--outputs {pair[:80]}: expected ROLE=NAME, as scores=output_1")
        found[role] = name
    return found


def _told(made: "Importable") -> Sequence[str]:
    checked = made.checked
    total = sum(checked.sure.values())
    each = ", ".join(f"{label} {count}" for label, count in sorted(checked.sure.items()))
    return [
        *made.seen.told,
        f"checked: {checked.pictures} pictures, {checked.milliseconds:.1f} ms for an answer on "
        f"this machine ({made.plan.threads} threads), {total} boxes that are surer than "
        f"{made.workload.sure_score:g}{f' ({each})' if each else ''}",
    ]


def _as_json(made: "Importable", number: int | None, channel: str) -> dict[str, Any]:
    return {
        "version": number,
        "channel": channel,
        "file": made.plan.file.name,
        "size_bytes": made.plan.file.stat().st_size,
        "reading": made.workload.reading.model_dump(mode="json"),
        "classes_in_file": made.seen.columns,
        "labels": list(made.workload.labels),
        "pictures": made.checked.pictures,
        "milliseconds": round(made.checked.milliseconds, 3),
        "sure_boxes": dict(made.checked.sure),
        "warnings": list(made.checked.doubts),
    }
