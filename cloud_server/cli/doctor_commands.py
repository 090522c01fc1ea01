"""Commands that look for what is wrong."""

import json

import typer

from cloud_server.cli.terminal import Directory, Json, data_console, with_given_directory

COLOR = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(directory: Directory, json_output: Json = False) -> None:
    """Look at keys, certificates, clock, disk, files, port; exit code 1 if something fails."""
    from cloud_server.cli.doctor import examine
    from cloud_server.state.directory import ServerDirectory
    from fleet_model.protocol.proof import utc_now

    found = examine(ServerDirectory(directory), utc_now())
    if json_output:
        typer.echo(json.dumps({"findings": [one.as_json() for one in found]}))
    else:
        screen = data_console()
        for one in found:
            screen.print(f"[{COLOR[one.state]}]{one.state:4}[/] {one.subject}: ", end="")
            screen.print(with_given_directory(one.text), markup=False, soft_wrap=True)
            for line in one.next_step.splitlines():
                screen.print(
                    f"     next: {with_given_directory(line)}", markup=False, soft_wrap=True
                )
    if any(one.state == "fail" for one in found):
        raise typer.Exit(1)
