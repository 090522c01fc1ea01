"""Command line of a site relay: site-relay. Its robots are admitted with `cloud-server robots`."""

from pathlib import Path
from typing import Annotated

import typer

from fleet_model.command_line.app import make_app, run_app

app = make_app(
    "A relay for the robots of one building: the fleet's server sees one robot.",
    "0 done, 2 wrong settings or flags, 6 refused, 7 no connection, 12 disk full or damaged",
)
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="the relay's directory")]


@app.command()
def init(
    directory: Directory,
    kit: Annotated[Path, typer.Option(help="the robot kit of the fleet's server")],
    name: Annotated[
        list[str],
        typer.Option(help="host name or address robots of the building use; may be repeated"),
    ],
    host: Annotated[str, typer.Option(help="address to listen on")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option(min=1, max=65535, help="HTTPS port")] = 8443,
) -> None:
    """Make a relay's directory: keys, settings, and the kit for the robots of the building.

    Example: site-relay init hall-2 --kit kit --name relay.hall-2.example.com
    """
    from cloud_server.cli.terminal import console
    from site_relay.initialize import initialize

    line = initialize(directory, kit, names=name, host=host, port=port)
    typer.echo(line)
    screen = console()
    for words in (
        "server: cloud-server robots add FLEET relay-1 --site SITE --key 'the line above'",
        "server: cloud-server robots relay FLEET relay-1 ROBOTS   (how many are behind it)",
        f"next:   site-relay start {directory}",
        f"robot:  edge-agent enroll {directory}/kit --dir ROBOT_DIR",
        f"        cloud-server robots add {directory} NAME --site SITE --key KEY",
    ):
        screen.print(words, markup=False, soft_wrap=True)


@app.command()
def start(directory: Directory) -> None:
    """Serve the robots of the building, and answer the fleet's server, until Ctrl-C or SIGTERM."""
    from cloud_server.server import serve
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.logs import log_to_stderr
    from cloud_server.state.settings import load_settings
    from site_relay.relay import Relay, upstream_of

    server_dir = ServerDirectory(directory.absolute())
    upstream = upstream_of(server_dir)
    log_to_stderr(load_settings(server_dir.settings).log, directory)
    serve(server_dir, Relay(server_dir, upstream))


def main() -> None:
    """Run the command line."""
    run_app(app, "site-relay")
