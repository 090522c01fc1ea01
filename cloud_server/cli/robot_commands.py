"""Commands over the register: who may take part."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import Directory, Json, console, table
from fleet_model.errors import FleetError, SettingsError

if TYPE_CHECKING:
    from cloud_server.robots.register import Register, Robot
    from cloud_server.state.directory import ServerDirectory

app = typer.Typer(
    no_args_is_help=True,
    help="Who may take part. A running server follows every change within seconds.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the robot")]
Reason = Annotated[str, typer.Option(help="what the robot and its owner are told")]


@app.command("add")
def robots_add(
    directory: Directory,
    name: Annotated[str, typer.Argument(help="unique name of the robot")],
    key: Annotated[str, typer.Option(help="public key line, or the file that holds it")],
    site: Annotated[str, typer.Option(help="group of robots it belongs to")] = "default",
    label: Annotated[list[str] | None, typer.Option(help="may be given several times")] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="follow models only, until it is approved")
    ] = False,
) -> None:
    """Admit a robot's public key under a name and a site."""
    line = key
    if not key.startswith(("ecdsa-", "-----BEGIN")):  # the latter is refused, and not repeated
        _register(directory)  # no directory: say that first
        try:
            line = Path(key).read_text()
        except (OSError, ValueError) as error:
            raise SettingsError(f"--key {key}: {error}; give the line or its file") from None
    robot = _register(directory).add(name, site, line, pending=pending, labels=label or ())
    _report("added as pending" if pending else "admitted", robot)


@app.command("approve")
def robots_approve(directory: Directory, name: Name) -> None:
    """Let a pending or suspended robot take part; its refused updates are counted anew."""
    _report("approved", _register(directory).approve(name))


@app.command("suspend")
def robots_suspend(
    directory: Directory, name: Name, reason: Reason = "suspended by the operator"
) -> None:
    """Leave a robot out of training for now; it goes on following models."""
    _report("suspended", _register(directory).suspend(name, reason))


@app.command("revoke")
def robots_revoke(
    directory: Directory, name: Name, reason: Reason = "revoked by the operator"
) -> None:
    """Refuse a robot's key everywhere and for good: it was lost, stolen or retired."""
    _report("revoked", _register(directory).revoke(name, reason))


@app.command("forget")
def robots_forget(directory: Directory, name: Name) -> None:
    """Take a robot out of the register: name and key are free again."""
    _report("forgotten", _register(directory).forget(name))


@app.command("label")
def robots_label(
    directory: Directory,
    name: Name,
    add: Annotated[list[str] | None, typer.Option(help="may be given several times")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="may be given several times")] = None,
) -> None:
    """Change a robot's labels; `rounds.labels` and `rounds.query` choose robots by them."""
    robot = _register(directory).label(name, add or (), remove or ())
    console().print(f"[green]labels[/] of {robot.name}: {', '.join(robot.labels) or 'none'}")


@app.command("list")
def robots_list(directory: Directory, json_output: Json = False) -> None:
    """List the robots of the register, and the unknown keys that asked in the last day."""
    from cloud_server.monitoring.status_words import name_no_server
    from cloud_server.robots.last_seen import LastSeen
    from cloud_server.state.directory import ServerDirectory

    server_dir = ServerDirectory(directory)
    robots, waiting = _register(directory).robots(), _waiting(server_dir)
    seen = LastSeen(server_dir.seen)
    older = [
        robot.name
        for robot in robots
        if robot.state != "revoked" and seen.of(robot.name) and not seen.has_named_server(robot)
    ]
    if json_output:
        typer.echo(json.dumps([*(robot.model_dump() for robot in robots), *waiting]))
        return
    rows = [
        (r.name, r.site, r.state, ", ".join(r.labels), r.fingerprint, r.added_at[:19], r.reason)
        for r in robots
    ]
    table(("robot", "site", "state", "labels", "key", "added (UTC)", "reason"), rows)
    for line in name_no_server(older):
        typer.echo(line)
    for one in waiting:
        command = one["reason"].replace(" DIR ", f" {server_dir.root} ", 1)
        typer.echo(f"waiting: {one['fingerprint']}, seen {one['last_seen_s']:.0f} s ago; {command}")


def _register(directory: Path) -> "Register":
    from cloud_server.robots.register import Register
    from cloud_server.state.directory import ServerDirectory

    server_dir = ServerDirectory(directory)
    server_dir.require()
    return Register(server_dir.robots)


def _report(what: str, robot: "Robot") -> None:
    console().print(
        f"[green]{what}[/] {robot.name} at site {robot.site}: {robot.fingerprint}", soft_wrap=True
    )


def _waiting(server_dir: "ServerDirectory") -> Sequence[dict[str, Any]]:
    """Return unknown keys as the running server knows them, else as it wrote them down."""
    from cloud_server.cli.admin_client import AdminClient
    from cloud_server.monitoring.robot_status import waiting_keys
    from cloud_server.robots.last_seen import LastSeen
    from cloud_server.robots.register import Register

    try:
        return list(AdminClient(server_dir).status()["waiting"])
    except FleetError:  # it does not run, or is not of this version
        return [
            one.as_json()
            for one in waiting_keys(Register(server_dir.robots), LastSeen(server_dir.seen))
        ]
