"""Commands over the labels that a fleet learns."""

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_server.cli.terminal import Directory, Json, tell_alike, trained_of, with_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_server.labels import Labels
    from cloud_server.state.directory import ServerDirectory

app = typer.Typer(no_args_is_help=True, help="The labels that the fleet learns.")
Channel = Annotated[str, typer.Option(help="whose labels, if another channel is trained by itself")]


@app.command("list")
def labels_list(directory: Directory, channel: Channel = "", json_output: Json = False) -> None:
    """Show the labels, in the order of the model's outputs, and their former names."""
    from cloud_server.labels import labels_of

    labels = labels_of(trained_of(directory, channel))
    if json_output:
        typer.echo(json.dumps({"labels": labels.names, "former": dict(labels.former)}))
        return
    for name in labels.names:
        words = [old for old, now in labels.former.items() if now == name]
        typer.echo(f"{name}  (in recordings also: {', '.join(words)})" if words else name)


@app.command("add")
def labels_add(
    directory: Directory,
    names: Annotated[list[str], typer.Argument(metavar="LABEL...", help="new labels")],
    channel: Channel = "",
) -> None:
    """Let the trained fleet learn more labels; what it has learned stays to the bit."""
    _change(trained_of(directory, channel), channel, lambda labels: labels.with_added(names))


@app.command("rename")
def labels_rename(
    directory: Directory,
    old: Annotated[str, typer.Argument(metavar="OLD")],
    new: Annotated[str, typer.Argument(metavar="NEW")],
    channel: Channel = "",
) -> None:
    """Give a label another name; robots take the old one in their recordings for the new one."""
    _change(trained_of(directory, channel), channel, lambda labels: labels.renamed(old, new))


def _change(
    server_dir: "ServerDirectory", channel: str, change: "Callable[[Labels], Labels]"
) -> None:
    from cloud_server.labels import labels_of, relabel
    from cloud_server.state.settings import load_settings
    from fleet_model.errors import SettingsError

    settings = load_settings(server_dir.settings).publish
    if channel:
        settings = settings.model_copy(update={"channel": channel})
    with suppress(SettingsError):  # it is raised again below, unless there is work left to do
        tell_alike(change(labels_of(server_dir)).names)
    with with_steps("labels") as tell:
        version = relabel(server_dir, settings, change, tell)
    typer.echo(f"version {version} is published; robots learn its labels from the next round on")
