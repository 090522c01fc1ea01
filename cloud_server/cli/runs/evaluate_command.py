"""`cloud-server evaluate`: let robots measure a model on their held-out examples."""

import json
from typing import Annotated

import typer

from cloud_server.cli.runs.following import follow
from cloud_server.cli.terminal import Directory, Json, say, show_evaluation
from fleet_model.errors import RoundError


def evaluate(
    directory: Directory,
    version: Annotated[
        int | None,
        typer.Option(min=0, help="published or closed version; default: the newest checkpoint"),
    ] = None,
    robot: Annotated[
        list[str] | None,
        typer.Option(help="ask only this robot; may be given several times"),
    ] = None,
    json_output: Json = False,
) -> None:
    """Let robots measure a model on their held-out examples; no weights are sent back.

    Robots that are online and fit "rounds" in server.toml are asked. The running server keeps the
    result.
    """
    from cloud_server.cli.admin_client import AdminClient
    from cloud_server.state.directory import ServerDirectory

    client = AdminClient(ServerDirectory(directory))
    asked = client.evaluate(version, robot or ())
    run = follow(client, asked, say if json_output else typer.echo)
    if json_output:
        typer.echo(json.dumps(run))
    if run["state"] != "finished":
        error = RoundError(f"evaluation {run['id']}: {run['error']}")
        error.exit_code = run["exit_code"] or RoundError.exit_code
        raise error
    if not json_output:
        show_evaluation(run)
