"""Command line of the cloud side: cloud-server."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet_model import __version__
from fleet_model.errors import FleetError, RoundError, SettingsError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Federated learning for fleets of robots: the server side.\n\n"
    "Exit codes: 0 done, 2 wrong settings or flags, 3 damaged bundle, 6 refused, 7 no connection, "
    "8 checkpoint does not fit, 9 export failed, 10 round failed.",
)
robots_app = typer.Typer(no_args_is_help=True, help="Who may take part.")
models_app = typer.Typer(no_args_is_help=True, help="Published models.")
app.add_typer(robots_app, name="robots")
app.add_typer(models_app, name="models")

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="server directory")]
Json = Annotated[bool, typer.Option("--json", help="print JSON to stdout")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fleetlearn {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Federated learning for fleets of robots: the server side."""


@app.command()
def init(
    directory: Directory,
    labels: Annotated[str, typer.Option(help="comma-separated, in the order of the outputs")],
    workload: Annotated[str, typer.Option(help="what is learned")] = "image-classifier",
    backbone: Annotated[
        str, typer.Option(help="efficientnet-lite0 (ImageNet weights) or mobilenet-v2-035 (light)")
    ] = "efficientnet-lite0",
    image_size: Annotated[
        int | None, typer.Option(help="side of the square input in pixels; default: the backbone's")
    ] = None,
    trainable: Annotated[
        str,
        typer.Option(help="head (robots need no TensorFlow), last-block or all (they need it)"),
    ] = "head",
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="start from a .keras file or an old system's round-N-weights.npz"),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="folder of your own pictures to calibrate int8 with; they stay here"),
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="HTTPS port")] = 8443,
    name: Annotated[
        list[str] | None,
        typer.Option(help="host name or address robots use; first one goes into the kit"),
    ] = None,
) -> None:
    """Make a server directory: keys, settings, first checkpoint, version 0, robot kit."""
    from cloud_server.initialize import Plan, initialize

    config: dict[str, Any] = {
        "labels": [label.strip() for label in labels.split(",") if label.strip()],
        "backbone": backbone,
    }
    if image_size is not None:
        config["image_size"] = image_size
    if len(config["labels"]) < 2:
        raise SettingsError("--labels: expected at least two, e.g. --labels clear,blocked")
    if not name and host in ("0.0.0.0", "::"):  # noqa: S104
        raise SettingsError(f"--host {host}: say with --name under which name robots reach it")
    names = name or [host]
    plan = Plan(
        workload=workload,
        config=config,
        trainable=trainable,
        host=host,
        port=port,
        names=names,
        checkpoint=checkpoint,
        calibration=None if calibration is None else calibration.absolute(),
    )
    console = _console()
    with console.status("init") as status:
        manifest = initialize(directory, plan, lambda step: status.update(f"init: {step} ..."))
    console.print(f"[green]ready[/]: {directory}, version {manifest.version} is published")
    console.print(f"next:  cloud-server start {directory}")
    console.print(f"robot: edge-agent enroll {directory}/kit --dir ROBOT_DIR")


@app.command()
def renew_certificate(directory: Directory) -> None:
    """Make a new server certificate, e.g. for other names in server.toml; then restart."""
    from cloud_server.directory import ServerDirectory
    from cloud_server.initialize import renew_certificate as renew

    names = renew(ServerDirectory(directory))
    _console().print(f"[green]new certificate[/] for {', '.join(names)}; restart the server")


@app.command()
def start(directory: Directory) -> None:
    """Serve robots and the operator until Ctrl-C or SIGTERM."""
    from cloud_server.directory import ServerDirectory
    from cloud_server.server import serve

    _log_to_stderr()
    serve(ServerDirectory(directory))


@app.command()
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
        _console().print(
            f"[green]version {run['published_version']} is published[/] "
            f"after {run['seconds']:.1f} s"
        )


@app.command()
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
    _table(("robot", "site", "trains now", "seen", "version"), rows)
    for run in answer["runs"]:
        typer.echo(f"run {run['id']}: {run['state']}, {len(run['closed'])}/{run['rounds']} rounds")


@robots_app.command("add")
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
    _console().print(f"[green]admitted[/] {robot.name} at site {robot.site}: {robot.fingerprint}")


@robots_app.command("list")
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
    _table(("robot", "site", "key", "added (UTC)"), rows)


@models_app.command("list")
def models_list(directory: Directory, json_output: Json = False) -> None:
    """List the published versions."""
    from cloud_server.directory import ServerDirectory
    from cloud_server.model_store import DirectoryStore

    place = ServerDirectory(directory)
    place.require()
    store = DirectoryStore(place.store)
    channels, versions = store.channels(), store.versions()
    if json_output:
        values = [m.model_dump(mode="json") for m in versions]
        typer.echo(json.dumps({"channels": channels, "versions": values}))
        return
    rows = [
        (
            str(m.version),
            m.created_at[:19],
            ", ".join(name for name, version in channels.items() if version == m.version),
            m.workload.name,
            f"{sum(entry.size_bytes for entry in m.files.values()) / 1e6:.1f} MB",
        )
        for m in versions
    ]
    _table(("version", "created (UTC)", "channel", "workload", "files"), rows)


def _follow(client: Any, run: dict[str, Any]) -> dict[str, Any]:
    """Poll a run until it has ended, with a progress bar on stderr."""
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    console = _console()
    with Progress(
        SpinnerColumn(),
        *Progress.get_default_columns()[:2],
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task("round 1", total=run["rounds"])
        shown = 0
        while True:
            for record in run["closed"][shown:]:
                console.print(_round_line(record))
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


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    for noisy in ("httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def main() -> None:
    """Run the CLI; our own errors become one line and an exit code."""
    try:
        app()
    except FleetError as error:
        typer.echo(f"cloud-server: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
