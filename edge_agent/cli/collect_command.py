"""`edge-agent collect`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli.frame_commands import Json, damage_values, require_no_loss

if TYPE_CHECKING:
    from edge_agent.data.collecting.collect import Collected


def collect(
    exports: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]EXPORT...",
            help="JSON file of an export, or a folder of them; NAME says what its records are from",
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder of the table and its pictures")] = Path(
        "collected"
    ),
    json_output: Json = False,
) -> None:
    """Make a table of what platforms export: text, picture, time, source and author of each post.

    What is empty, twice there or damaged is left out and counted; exit code 13 says that something
    was damaged. Nothing is fetched.

    Example: edge-agent collect board=export/ reports.json --out records
    """
    from edge_agent.data.collecting.collect import collect as run
    from edge_agent.data.collecting.collect import export_of

    told = run([export_of(one) for one in exports], out)
    typer.echo(json.dumps(_values(told, out)) if json_output else _lines(told, out))
    require_no_loss(told.losses)


def _values(told: "Collected", out: Path) -> dict[str, Any]:
    return {
        "out": out.name,
        "found": told.found,
        "written": told.written,
        "with_picture": told.pictures,
        "sources": dict(told.sources),
        "further_pictures": told.further,
        "without_time": told.without_time,
        "without_author": told.without_author,
        "left_out": damage_values(told.left_out.all()),
        "damage": damage_values(told.damage.all()),
    }


def _lines(told: "Collected", out: Path) -> str:
    lines = [
        f"{told.written} of {told.found} records in {out}, {told.pictures} with a picture",
        *(f"  {count} of {source}" for source, count in sorted(told.sources.items())),
    ]
    lines += [f"  {d.count} left out: {d.kind}, first {d.begins}" for d in told.left_out.all()]
    for count, what in (
        (told.further, "further pictures are not taken: a record has one"),
        (told.without_time, "without a time"),
        (told.without_author, "without an author: to a profile they are of one"),
    ):
        if count:
            lines.append(f"  {count} {what}")
    return "\n".join(lines)
