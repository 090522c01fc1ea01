"""Command line of the cloud side: cloud-server."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cloud_server.cli import (
    doctor_commands,
    model_commands,
    robot_commands,
    run_commands,
    simulate_commands,
    status_commands,
)
from cloud_server.cli.terminal import Directory, console
from fleet_model import __version__
from fleet_model.errors import FleetError, SettingsError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Federated learning for fleets of robots: the server side.\n\n"
    "Exit codes: 0 done, 2 wrong settings or flags, 3 damaged bundle, 6 refused, 7 no connection, "
    "8 checkpoint does not fit, 9 export failed, 10 round failed, "
    "12 disk full or damaged, 14 run stopped.",
)
app.command()(run_commands.train)
app.command()(status_commands.status)
app.command()(status_commands.history)
app.command()(simulate_commands.simulate)
app.command()(doctor_commands.doctor)
app.add_typer(run_commands.runs, name="runs")
app.add_typer(run_commands.schedule, name="schedule")
app.add_typer(robot_commands.app, name="robots")
app.add_typer(model_commands.app, name="models")


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
    screen = console()
    with screen.status("init") as status:
        manifest = initialize(directory, plan, lambda step: status.update(f"init: {step} ..."))
    screen.print(f"[green]ready[/]: {directory}, version {manifest.version} is published")
    screen.print(f"next:  cloud-server start {directory}")
    screen.print(f"robot: edge-agent enroll {directory}/kit --dir ROBOT_DIR")


@app.command()
def renew_certificate(directory: Directory) -> None:
    """Make a new server certificate, e.g. for other names in server.toml; then restart."""
    from cloud_server.initialize import renew_certificate as renew
    from cloud_server.state.directory import ServerDirectory

    names = renew(ServerDirectory(directory))
    console().print(f"[green]new certificate[/] for {', '.join(names)}; restart the server")


@app.command()
def start(directory: Directory) -> None:
    """Serve robots and the operator until Ctrl-C or SIGTERM."""
    from cloud_server.server import serve
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.logs import log_to_stderr
    from cloud_server.state.settings import load_settings

    server_dir = ServerDirectory(directory)
    server_dir.require()
    log_to_stderr(load_settings(server_dir.settings).log)
    serve(server_dir)


def main() -> None:
    """Run the CLI; our own errors become one line and an exit code."""
    try:
        app()
    except FleetError as error:
        typer.echo(f"cloud-server: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
