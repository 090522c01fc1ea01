"""Commands over the register: who may take part."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import Directory, Json, console, table
from cloud_server.monitoring.run_words import shown_model
from fleet_model.errors import FleetError, SettingsError

if TYPE_CHECKING:
    from cloud_server.robots.last_seen import LastSeen
    from cloud_server.robots.register import Register, Robot
    from cloud_server.state.directory import ServerDirectory

app = typer.Typer(
    no_args_is_help=True,
    help="Who may take part. A running server follows every change within seconds.",
)
_UNKNOWN: Mapping[str, Any] = {  # of a robot that was never seen
    "software": "",
    "protocol": None,
    "model_version": None,
    "trial": None,
}
NO_SITE = "default"  # site of robots for which the operator names none
Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the robot")]
Reason = Annotated[str, typer.Option(help="what the robot and its owner are told")]


@app.command("add")
def robots_add(
    directory: Directory,
    name: Annotated[str, typer.Argument(help="unique name of the robot")] = "",
    key: Annotated[str, typer.Option(help="public key line, or the file that holds it")] = "",
    folder: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="admit many: NAME.pub files, names and sites in robots.csv; see operate-server.md",
        ),
    ] = None,
    site: Annotated[
        str, typer.Option(help=f"group of robots it belongs to  [default: {NO_SITE}]")
    ] = "",
    label: Annotated[list[str] | None, typer.Option(help="may be given several times")] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="follow models only, until it is approved")
    ] = False,
) -> None:
    """Admit a robot's public key under a name and a site, or all keys of a folder.

    Example: cloud-server robots add fleet r1 --site hall-1 --key robot.pub
    """
    if folder is not None:
        if name or key:
            raise SettingsError("--from FOLDER takes names and keys from there: give none")
        _add_all(directory, folder, site, tuple(label or ()), pending=pending)
        return
    if not name or not key:
        raise SettingsError("give NAME and --key, or --from FOLDER for many robots")
    line = key
    # Other kinds, and private keys, are refused by the register, and not repeated.
    if not key.startswith(("ecdsa-", "ssh-", "sk-", "-----BEGIN")):
        _register(directory)  # no directory: say that first
        try:
            line = Path(key).read_text()
        except (OSError, ValueError) as error:
            raise SettingsError(f"--key {key}: {error}; give the line or its file") from None
    robot = _register(directory).add(
        name, site or NO_SITE, line, pending=pending, labels=label or ()
    )
    _report("added as pending" if pending else "admitted", robot)
    _tell_no_site(directory, [] if site else [robot.name])


def _tell_no_site(directory: Path, robots: Sequence[str]) -> None:
    if not robots:
        return
    name = robots[0] if len(robots) == 1 else "NAME"
    console().print(
        f"site {NO_SITE}: no site was given; to change it: "
        f"cloud-server robots site {directory} {name} SITE",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def _add_all(
    directory: Path, folder: Path, site: str, labels: tuple[str, ...], *, pending: bool
) -> None:
    from cloud_server.robots.key_files import read_key_files
    from cloud_server.robots.register import new_robot

    register, new = _register(directory), []
    for one in read_key_files(folder, site or NO_SITE, labels):
        try:
            robot = new_robot(one.name, one.site, one.key, pending=pending, labels=one.labels)
        except SettingsError as error:
            raise SettingsError(
                f"--from {folder}: {one.where}: {error}; nobody is admitted"
            ) from None
        known = register.by_name(robot.name)
        if known is None or known.key != robot.key:  # else a second call with some more robots
            new.append(robot)
    try:
        register.add_all(new)
    except SettingsError as error:
        raise SettingsError(f"--from {folder}: {error}; nobody is admitted") from None
    for robot in new:
        _report("added as pending" if pending else "admitted", robot)
    typer.echo(f"{len(new)} robots admitted")
    _tell_no_site(directory, [r.name for r in new if not site and r.site == NO_SITE])


@app.command("approve")
def robots_approve(
    directory: Directory,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="names of robots")],
) -> None:
    """Let pending or suspended robots take part; their refused updates are counted anew."""
    for name in names:
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
def robots_forget(
    directory: Directory,
    name: Name,
    unlearn: Annotated[
        bool,
        typer.Option("--unlearn", help="make a head of the other robots' sums, without this one's"),
    ] = False,
) -> None:
    """Take a robot out of the register: name and key are free again.

    Example: cloud-server robots forget fleet r1 --unlearn
    """
    if unlearn:
        _unlearn(directory, name)
    else:
        _report("forgotten", _register(directory).forget(name))
    _forget_profiles(directory, name)


def _forget_profiles(directory: Path, name: str) -> None:
    from cloud_server.profiles.store import ProfileStore
    from cloud_server.state.directory import ServerDirectory

    server_dir = ServerDirectory(directory)
    for home in (server_dir.root, *server_dir.channels.glob("*")):
        ProfileStore(home / server_dir.profiles.name).forget(name)


def _unlearn(directory: Path, name: str) -> None:
    from cloud_server.cli.terminal import trained_of
    from cloud_server.unlearning import unlearn

    register = _register(directory)
    for line in unlearn(trained_of(directory, ""), register, name):
        typer.echo(line)


@app.command("label")
def robots_label(
    directory: Directory,
    name: Name,
    add: Annotated[list[str] | None, typer.Option(help="may be given several times")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="may be given several times")] = None,
) -> None:
    """Change a robot's labels; `rounds.labels` and `rounds.query` choose robots by them."""
    robot = _register(directory).label(name, add or (), remove or ())
    typer.echo(f"labels of {robot.name}: {', '.join(robot.labels) or 'none'}")


@app.command("site")
def robots_site(
    directory: Directory,
    name: Name,
    site: Annotated[str, typer.Argument(metavar="SITE", help="group of robots it belongs to")],
) -> None:
    """Move a robot to another site; `rounds.sites` and `rounds.query` choose robots by it."""
    robot = _register(directory).move(name, site)
    typer.echo(f"site of {robot.name}: {robot.site}")


@app.command("relay")
def robots_relay(
    directory: Directory,
    name: Name,
    robots: Annotated[
        int, typer.Argument(metavar="ROBOTS", help="that are behind it; 1: it is no relay")
    ],
) -> None:
    """Let a site relay answer for the robots of its building; see `site-relay --help`."""
    robot = _register(directory).relay(name, robots)
    behind = f"{robot.speaks_for} robots" if robot.speaks_for > 1 else "itself alone"
    typer.echo(f"{robot.name} answers for {behind}")


@app.command("list")
def robots_list(directory: Directory, json_output: Json = False) -> None:
    """List the robots of the register, and the unknown keys that asked in the last day."""
    from cloud_server.monitoring.status_words import name_no_server
    from cloud_server.robots.last_seen import LastSeen
    from cloud_server.state.clock import age
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.words import with_directory

    server_dir = ServerDirectory(directory)
    robots, seen = _register(directory).robots(), LastSeen(server_dir.seen)
    agents, waiting = _agents_and_waiting(server_dir, seen)
    older = [
        robot.name
        for robot in robots
        if robot.state != "revoked" and seen.of(robot.name) and not seen.has_named_server(robot)
    ]
    if json_output:
        listed = [{**robot.model_dump(), **agents.get(robot.name, _UNKNOWN)} for robot in robots]
        typer.echo(json.dumps([*listed, *waiting]))
        return
    rows = []
    for r in robots:
        agent = agents.get(r.name, _UNKNOWN)
        model = shown_model(agent["model_version"], agent["trial"])
        told = [model, agent["software"] or "-", str(agent["protocol"] or "-")]
        labels, added = ", ".join(r.labels), r.added_at[:19]
        state = r.state if r.speaks_for == 1 else f"{r.state}, for {r.speaks_for} robots"
        rows.append((r.name, r.site, state, labels, *told, r.fingerprint, added, r.reason))
    columns = ("version", "software", "protocol", "key", "added (UTC)", "reason")
    table(("robot", "site", "state", "labels", *columns), rows)
    for line in name_no_server(older):
        typer.echo(line)
    for one in waiting:
        command = with_directory(one["reason"], server_dir.root)
        typer.echo(f"waiting: {one['fingerprint']}, seen {age(one['last_seen_s'])} ago; {command}")


def _register(directory: Path) -> "Register":
    from cloud_server.robots.register import Register
    from cloud_server.state.directory import ServerDirectory

    server_dir = ServerDirectory(directory)
    server_dir.require()
    return Register(server_dir.robots)


def _report(what: str, robot: "Robot") -> None:
    typer.echo(f"{what} {robot.name} at site {robot.site}: {robot.fingerprint}")


def _agents_and_waiting(
    server_dir: "ServerDirectory", seen: "LastSeen"
) -> tuple[Mapping[str, Mapping[str, Any]], Sequence[dict[str, Any]]]:
    """Return robot -> what its agent told of itself, and unknown keys.

    As the running server knows them, else as it wrote them down.
    """
    from cloud_server.cli.admin_client import AdminClient
    from cloud_server.monitoring.robot_status import waiting_keys
    from cloud_server.robots.register import Register

    register = Register(server_dir.robots)
    try:
        answer = AdminClient(server_dir).status()
        robots, waiting = answer["robots"], list(answer["waiting"])
        reports = {one["name"]: (one["report"] or {}, one.get("protocol")) for one in robots}
    except FleetError:  # it does not run, or is not of this version
        waiting = [one.as_json() for one in waiting_keys(register, seen)]
        reports = {}
        for robot in register.robots():
            report = seen.report(robot.name)
            told = {} if report is None else report.model_dump()
            reports[robot.name] = (told, seen.protocol(robot.name))
    return {
        name: {
            "software": report.get("software", ""),
            "protocol": protocol,
            "model_version": report.get("model_version"),
            "trial": report.get("trial"),
        }
        for name, (report, protocol) in reports.items()
    }, waiting
