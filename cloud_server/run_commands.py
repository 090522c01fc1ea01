"""Commands over runs: train, and what the server does now."""

import json
import time
from typing import Annotated, Any

import typer

from cloud_server.terminal import Directory, Json, console, table
from fleet_model.errors import RoundError


def train(
    directory: Directory,
    rounds: Annotated[int, typer.Option(min=1, help="federated rounds")] = 3,
    json_output: Json = False,
) -> None:
    """Ask the running server for rounds, follow them, end when the new model is published."""
    from cloud_server.admin_client import AdminClient
    from cloud_server.directory import ServerDirectory

    client = AdminClient(ServerDirectory(directory))
    run = client.start_run(rounds)
    run = _follow(client, run)
    if json_output:
        typer.echo(json.dumps(run))
    if run["state"] != "finished":
        error = RoundError(f"run {run['id']}: {run['error']}")
        error.exit_code = run["exit_code"] or RoundError.exit_code
        raise error
    if not json_output:
        console().print(
            f"[green]version {run['published_version']} is published[/] "
            f"after {run['seconds']:.1f} s"
        )


def status(directory: Directory, json_output: Json = False) -> None:
    """Show robots, runs, channels of the running server."""
    from cloud_server.admin_client import AdminClient
    from cloud_server.directory import ServerDirectory

    answer = AdminClient(ServerDirectory(directory)).status()
    if json_output:
        typer.echo(json.dumps(answer))
        return
    rows = [
        (
            r["name"],
            r["site"],
            "yes" if r["online"] else "no",
            "never" if r["last_seen_s"] is None else f"{r['last_seen_s']:.0f} s ago",
            "-" if r["active_version"] is None else str(r["active_version"]),
        )
        for r in answer["robots"]
    ]
    table(("robot", "site", "trains now", "seen", "version"), rows)
    for run in answer["runs"]:
        typer.echo(f"run {run['id']}: {run['state']}, {len(run['closed'])}/{run['rounds']} rounds")


def _follow(client: Any, run: dict[str, Any]) -> dict[str, Any]:
    """Poll a run until it has ended, with a progress bar on stderr."""
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    screen = console()
    with Progress(
        SpinnerColumn(),
        *Progress.get_default_columns()[:2],
        TimeElapsedColumn(),
        console=screen,
        disable=not screen.is_terminal,
    ) as progress:
        bar = progress.add_task("round 1", total=run["rounds"])
        shown = 0
        while True:
            for record in run["closed"][shown:]:
                screen.print(_round_line(record))
            shown = len(run["closed"])
            what = "publishing" if run["state"] == "publishing" else f"round {shown + 1}"
            progress.update(bar, completed=shown, description=what)
            if run["state"] not in ("running", "publishing"):
                return run
            time.sleep(0.2)
            run = client.run(run["id"])


def _round_line(record: dict[str, Any]) -> str:
    metrics, robots = record["metrics"], record["robots"]
    accepted = sum(robot["outcome"] == "accepted" for robot in robots)
    scores = ", ".join(
        f"{name} {metrics[f'{name}_before']:.3f} -> {metrics[f'{name}_after']:.3f}"
        for name in ("loss", "accuracy")
        if f"{name}_before" in metrics
    )
    return (
        f"round {record['round']}: {accepted}/{len(robots)} robots, {record['seconds']:.1f} s, "
        f"held-out {scores or 'not measured'}"
    )
