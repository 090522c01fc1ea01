"""`edge-agent serve`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_agent.cli.options import CONFIG, Config
from fleet_model.errors import BundleError, SettingsError

POD_REST, POD_GRPC = "0.0.0.0:8080", "0.0.0.0:8081"
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
    name: Annotated[
        str | None, typer.Option(help="what clients call the model  [serve.name]")
    ] = None,
    pod: Annotated[
        bool,
        typer.Option(
            "--pod", help="with --bundle: other machines may ask, as a cluster's policy decides"
        ),
    ] = False,
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
        if pod:
            raise SettingsError(
                "--pod serves a bundle and no robot's model: name the folder with --bundle"
            )
        robot = load_settings(config)
        settings, precision = robot.serve, robot.engine.precision
        current = robot.state / "models" / "current"
    else:
        if not bundle.is_dir():
            raise BundleError(f"{bundle}: no such folder; --bundle names a bundle directory")
        settings, precision, current = ServeSettings(), "fp32", bundle
        if pod:
            _require_servable(bundle, precision)
            settings = settings.model_copy(update={"rest": POD_REST, "grpc": POD_GRPC})
    log_to_stderr()
    settings = _with(_with(settings, "rest", rest, pod), "grpc", grpc, pod)
    if name is not None:
        settings = _named(settings, name)
    serve_model(settings, current, precision, pod=pod)


def _require_servable(bundle: Path, precision: str) -> None:
    """Say at once why a pod would wait for ever: in there nobody installs another model."""
    from fleet_model.bundle import read_bundle
    from fleet_model.foreign import require_runtime

    manifest = read_bundle(bundle)
    if manifest.described_task.answer == "text":
        raise BundleError(
            f"{bundle}: version {manifest.version} is an adapter of a {manifest.workload.name} "
            "model, which --pod does not serve; `cloud-server serve-adapters DIR PLAN` does"
        )
    read_bundle(bundle, manifest.needed(precision))
    require_runtime(manifest.engines[precision])


def _named(settings: "ServeSettings", name: str) -> "ServeSettings":
    from pydantic import ValidationError

    from edge_agent.robot.serve_settings import ServeSettings

    try:
        ServeSettings.model_validate({"name": name})
    except ValidationError:
        raise SettingsError(
            f"--name {name!r:.80}: expected letters, digits, _ and -, at most 50, a letter first"
        ) from None
    return settings.model_copy(update={"name": name})


def _with(settings: "ServeSettings", wire: str, address: str | None, pod: bool) -> "ServeSettings":
    from edge_agent.robot.local_address import parse_address

    if address is None:
        return settings
    if address:
        try:
            parse_address(address, pod=pod)
        except ValueError as reason:
            raise SettingsError(f"--{wire} {address}: {reason}") from None
    return settings.model_copy(update={wire: address})
