"""Commands over a rollout in stages; `models promote --groups` begins one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import Directory, Json, table, with_given_directory
from fleet_model.errors import ConnectionFailed

if TYPE_CHECKING:
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.offers.rollout_files import Rollout

app = typer.Typer(no_args_is_help=True, help="New versions that robots get in groups.")
Channel = Annotated[str | None, typer.Option(help="whose robots  [the one with a rollout]")]


@app.command("status")
def rollout_status(directory: Directory, json_output: Json = False) -> None:
    """Show how far rollouts are, and what each robot runs and is to run."""
    told = _told(_server_dir(directory))
    if json_output:
        typer.echo(json.dumps(told))
        return
    if not told:
        typer.echo("there was no rollout yet")
    for one in told:
        rows = [
            (robot["name"], str(robot["group"]), str(robot["wants"]), _outcome(robot))
            for robot in one["robots"]
        ]
        if rows:
            table(("robot", "group", "is to run", f"version {one['next']}"), rows)
        for line in one["words"]:
            typer.echo(with_given_directory(line))


def _outcome(robot: dict[str, Any]) -> str:
    words = f"{robot['outcome']}: {robot['why']}" if robot["why"] else str(robot["outcome"])
    return words if robot["alive"] else f"{words} (away)"


@app.command("advance")
def rollout_advance(directory: Directory, channel: Channel = None) -> None:
    """Open the next group now, whatever robots have reported; after the last one, for all."""
    from cloud_server.rollout.changes import advance

    server_dir = _server_dir(directory)
    _say(advance(server_dir, _channel(server_dir, channel)))


@app.command("halt")
def rollout_halt(directory: Directory, channel: Channel = None) -> None:
    """Let no further robot take the version; those that have it keep it."""
    from cloud_server.rollout.changes import halt

    server_dir = _server_dir(directory)
    _say(halt(server_dir, _channel(server_dir, channel)))


@app.command("resume")
def rollout_resume(directory: Directory, channel: Channel = None) -> None:
    """Let a halted rollout go on; the robots for which it was halted count no more."""
    from cloud_server.rollout.changes import resume

    server_dir = _server_dir(directory)
    _say(resume(server_dir, _channel(server_dir, channel)))


@app.command("abort")
def rollout_abort(directory: Directory, channel: Channel = None) -> None:
    """Give all robots what the channel offered before, as a version with a new number."""
    from cloud_server.rollout.changes import abort

    server_dir = _server_dir(directory)
    _say(abort(server_dir, _channel(server_dir, channel)))


def _say(rollout: "Rollout") -> None:
    plan = rollout.plan
    back = f": all robots get version {plan.fallback.version}" if rollout.state == "aborted" else ""
    typer.echo(
        f"rollout of version {plan.next.version} on channel {plan.channel}: {rollout.state}, "
        f"{rollout.open} of {len(plan.groups)} groups open{back}"
    )


def _told(server_dir: "ServerDirectory") -> list[dict[str, Any]]:
    """Ask the running server, which hears robots; else look at what it has written down."""
    from cloud_server.cli.admin_client import AdminClient
    from cloud_server.robots.last_seen import LastSeen
    from cloud_server.robots.register import Register
    from cloud_server.rollout.progress import rollout_statuses
    from cloud_server.state.model_store import DirectoryStore

    try:
        told: list[dict[str, Any]] = AdminClient(server_dir).status().get("rollouts", [])
    except ConnectionFailed:
        register, seen = Register(server_dir.robots), LastSeen(server_dir.seen)
        statuses = rollout_statuses(DirectoryStore(server_dir.store), register, seen)
        told = [one.as_json() for one in statuses]
    return told


def _channel(server_dir: "ServerDirectory", channel: str | None) -> str:
    from cloud_server.state.offers.rollout_files import RolloutFiles

    known = list(RolloutFiles(server_dir.store).all())
    return channel or (known[0] if len(known) == 1 else "stable")


def _server_dir(directory: Path) -> "ServerDirectory":
    from cloud_server.state.directory import ServerDirectory

    server_dir = ServerDirectory(directory)
    server_dir.require()
    return server_dir
