"""Commands over the register: who may take part."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cloud_server.terminal import Directory, Json, console, table
from fleet_model.errors import SettingsError

app = typer.Typer(no_args_is_help=True, help="Who may take part.")


@app.command("add")
def robots_add(
    directory: Directory,
    name: Annotated[str, typer.Argument(help="unique name of the robot")],
    key: Annotated[str, typer.Option(help="public key line, or the file that holds it")],
    site: Annotated[str, typer.Option(help="group of robots it belongs to")] = "default",
) -> None:
    """Admit a robot's public key under a name and a site. Takes effect at once."""
    from cloud_server.directory import ServerDirectory
    from cloud_server.robots import Register

    place = ServerDirectory(directory)
    place.require()
    line = key
    if not key.startswith("ecdsa-"):
        try:
            line = Path(key).read_text()
        except (OSError, ValueError) as error:
            raise SettingsError(f"--key {key}: {error}; give the line or its file") from None
    robot = Register(place.robots).add(name, site, line)
    console().print(f"[green]admitted[/] {robot.name} at site {robot.site}: {robot.fingerprint}")


@app.command("list")
def robots_list(directory: Directory, json_output: Json = False) -> None:
    """List the admitted robots."""
    from cloud_server.directory import ServerDirectory
    from cloud_server.robots import Register

    place = ServerDirectory(directory)
    place.require()
    robots = Register(place.robots).robots()
    if json_output:
        typer.echo(json.dumps([robot.model_dump() for robot in robots]))
        return
    rows = [(r.name, r.site, r.fingerprint, r.added_at[:19]) for r in robots]
    table(("robot", "site", "key", "added (UTC)"), rows)
