"""`edge-agent serve`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_agent.cli.options import CONFIG, Config
from fleet_model.errors import BundleError, SettingsError

if TYPE_CHECKING:
    from edge_agent.robot.serve_settings import ServeSettings


def serve(
    config: Config = CONFIG,
    bundle: Annotated[
        Path | None, typer.Option(help="serve this bundle directory; needs no agent.toml")
    ] = None,
    rest: Annotated[
        str | None, typer.Option(help="127.0.0.1:PORT or unix:/PATH; empty: no REST")
    ] = None,
    grpc: Annotated[
        str | None, typer.Option(help="127.0.0.1:PORT or unix:/PATH; empty: no gRPC")
    ] = None,
) -> None:
    """Serve the installed model to programs on this machine, until SIGTERM.

    It speaks the Open Inference Protocol v2, over REST and gRPC; a new model takes over by itself.

    Example: edge-agent serve --config robot/agent.toml --rest 127.0.0.1:8000
    """
    from edge_agent.robot.logs import log_to_stderr
    from edge_agent.robot.serve_settings import ServeSettings
    from edge_agent.robot.settings import load_settings
    from edge_agent.serving.service import serve as serve_model

    if bundle is None:
        robot = load_settings(config)
        settings, precision = robot.serve, robot.engine.precision
        current = robot.state / "models" / "current"
    else:
        if not bundle.is_dir():
            raise BundleError(f"{bundle}: no such folder; --bundle names a bundle directory")
        settings, precision, current = ServeSettings(), "fp32", bundle
    log_to_stderr()
    settings = _with(_with(settings, "rest", rest), "grpc", grpc)
    serve_model(settings, current, precision)


def _with(settings: "ServeSettings", wire: str, address: str | None) -> "ServeSettings":
    from edge_agent.robot.local_address import parse_address

    if address is None:
        return settings
    if address:
        try:
            parse_address(address)
        except ValueError as reason:
            raise SettingsError(f"--{wire} {address}: {reason}") from None
    return settings.model_copy(update={wire: address})
