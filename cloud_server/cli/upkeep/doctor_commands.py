"""Commands that look for what is wrong, and mend it."""

from typing import Annotated

import typer

from cloud_server.cli.terminal import Directory, Json, console, with_given_directory
from fleet_model.command_line.app import show_findings


def doctor(directory: Directory, json_output: Json = False) -> None:
    """Look at keys, certificates, clock, disk, files, port; exit code 1 if something fails."""
    from cloud_server.cli.upkeep.doctor import examine
    from cloud_server.state.directory import ServerDirectory
    from fleet_model.protocol.proof import utc_now

    found = examine(ServerDirectory(directory), utc_now())
    show_findings(found, json_output=json_output, fill=with_given_directory)
    if any(one.state == "fail" for one in found):
        raise typer.Exit(1)


def repair(
    directory: Directory,
    start_again: Annotated[
        bool,
        typer.Option(
            "--start-again", help="all checkpoints are lost: train from the first weights"
        ),
    ] = False,
) -> None:
    """Make again what is missing and follows from the rest: published models, the robot kit."""
    from cloud_server.repair import repair as mend
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.settings import load_settings

    server_dir = ServerDirectory(directory)
    server_dir.require()
    settings = load_settings(server_dir.settings)
    done = False
    with console().status("repair") as status:
        for line in mend(
            server_dir,
            settings,
            lambda step: status.update(f"repair: {step}"),
            start_again=start_again,
        ):
            typer.echo(line)
            done = True
    if not done:
        typer.echo("nothing is missing")
