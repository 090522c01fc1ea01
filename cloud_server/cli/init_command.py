"""Command that makes a server directory: init."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import Directory, console, tell_alike, with_steps
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from cloud_server.models.adapters import AdapterPlan

_IMAGES = "Image classifier"  # its settings have options of their own, as shortcuts of --set
_ADAPTERS = "Adapters"
ADAPTERS_ALONE = ("lora", "lora-all")  # values of --trainable that need no --adapter beside them
_FLAGS = {
    "rank": "--rank",
    "alpha": "--alpha",
    "dropout": "--adapter-dropout",
    "patterns": "--adapter-targets",
}


def init(
    context: typer.Context,
    directory: Directory,
    workload: Annotated[str, typer.Option(help="what is learned")] = "image-classifier",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help='setting of the workload, e.g. image_size=96 or labels=["a", "b"]; repeatable',
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="comma-separated, in the order of the outputs; @FILE reads one from each line",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="efficientnet-lite0 (ImageNet weights; default) or mobilenet-v2-035 (light)",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="side of the square input in pixels; default: the backbone's",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    trainable: Annotated[
        str,
        typer.Option(
            help="what robots train; the image classifier has head (light enough for every robot), "
            "last-block, and all (for robots with TensorFlow); a language model has lora and "
            "lora-all, which mean --adapter lora"
        ),
    ] = "head",
    adapter: Annotated[
        str | None,
        typer.Option(
            help="lora: robots train and send low-rank adapters of the kernels",
            rich_help_panel=_ADAPTERS,
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="of the adapters; default 8", rich_help_panel=_ADAPTERS)
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="the adapters count alpha / rank; default: twice the rank",
            rich_help_panel=_ADAPTERS,
        ),
    ] = None,
    adapter_dropout: Annotated[
        float | None,
        typer.Option(
            help="share of an adapter's inputs that a step leaves out; default 0",
            rich_help_panel=_ADAPTERS,
        ),
    ] = None,
    adapter_targets: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="of trained tensors that get one, e.g. 'Conv_1/*'; repeatable; default: all "
            "kernels of dense layers and convolutions",
            rich_help_panel=_ADAPTERS,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="start from your own model file, or an old round-N-weights.npz"),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="folder of your own samples to calibrate int8 with; they stay here"),
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(help="add what is trained for another channel to an existing DIRECTORY"),
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="HTTPS port")] = 8443,
    name: Annotated[
        list[str] | None,
        typer.Option(help="host name or address robots use; first one goes into the kit"),
    ] = None,
) -> None:
    """Make a server directory: keys, settings, first checkpoint, version 0, robot kit.

    Example: cloud-server init fleet --labels clear,blocked --host 0.0.0.0 --name fleet.example.com
    """
    from cloud_server.initialize import InitPlan, add_channel, initialize

    if context.args:
        raise SettingsError(
            f"what is {context.args[0]!r} for? Labels have commas between: --labels clear,blocked"
        )
    shortcuts = {
        "labels": None if labels is None else _names(labels),
        "backbone": backbone,
        "image_size": image_size,
    }
    given = {key: value for key, value in shortcuts.items() if value is not None}
    config = parse_settings(settings or ())
    if twice := sorted(given.keys() & config.keys()):
        flag = twice[0].replace("_", "-")
        raise SettingsError(f"--{flag} and --set {twice[0]}=... say the same: give one of them")
    if not name and host in ("0.0.0.0", "::"):  # noqa: S104
        raise SettingsError(f"--host {host}: add --name HOSTNAME, the name that robots connect to")
    plan = InitPlan(
        workload=workload,
        config={**given, **config},
        trainable=trainable,
        host=host,
        port=port,
        names=name or [host],
        checkpoint=checkpoint,
        calibration=None if calibration is None else calibration.absolute(),
        adapter=adapter_plan(
            adapter or ("lora" if trainable in ADAPTERS_ALONE else None),
            {
                "rank": rank,
                "alpha": alpha,
                "dropout": adapter_dropout,
                "patterns": tuple(adapter_targets) if adapter_targets else None,
            },
        ),
    )
    screen = console()
    tell_alike(plan.config.get("labels", ()))
    with with_steps("init") as tell:
        if channel is not None:
            add_channel(directory, channel, plan, tell)
            screen.print(f"[green]ready[/]: version 0 is published on channel {channel}")
            screen.print(
                f'to train it: [publish] channel = "{channel}" in server.toml', markup=False
            )
            return
        manifest = initialize(directory, plan, tell)
    screen.print(f"[green]ready[/]: {directory}, version {manifest.version} is published")
    screen.print(f"next:  cloud-server start {directory}")
    screen.print(f"robot: edge-agent enroll {directory}/kit --dir ROBOT_DIR")


def adapter_plan(kind: str | None, given: Mapping[str, Any]) -> "AdapterPlan | None":
    """Return what --adapter and its options say; None where there is to be no adapter."""
    from pydantic import ValidationError

    from cloud_server.models.adapters import AdapterPlan

    options = {key: value for key, value in given.items() if value is not None}
    if kind is None:
        if options:
            raise SettingsError(f"{_FLAGS[next(iter(options))]} goes with --adapter lora: add it")
        return None
    if kind != "lora":
        raise SettingsError(f"--adapter {kind}: no such adapter, expected lora")
    if "rank" in options:  # a larger ratio lets A learn in steps that may be too long
        options.setdefault("alpha", 2.0 * options["rank"])
    try:
        return AdapterPlan(**options)
    except ValidationError as error:
        wrong = error.errors()[0]
        flag = _FLAGS[str(wrong["loc"][0])]
        raise SettingsError(f"{flag} {wrong['input']}: {wrong['msg'].lower()}") from None


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Return KEY=VALUE pairs; a value is TOML (numbers, true, lists), anything else is text.

    Raises:
        SettingsError: a pair has no key, is given twice, or looks like TOML and is none.
    """
    parsed: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key := key.strip()) or not equals:
            raise SettingsError(f"--set {pair}: expected KEY=VALUE, e.g. --set image_size=96")
        if key in parsed:
            raise SettingsError(f"--set {key}=... is given twice: give it once")
        parsed[key] = _value(key, text.strip())
    return parsed


def _value(key: str, text: str) -> Any:
    import json

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        value = tomllib.loads(f"value = {text}")["value"]
        json.dumps(value)  # dates are no JSON: text, as the workload gets it back from a manifest
    except (tomllib.TOMLDecodeError, TypeError):
        if text[:1] in ("[", "{", '"', "'"):
            raise SettingsError(
                f'--set {key}={text}: not a value of TOML; text in lists has quotes: ["a", "b"]'
            ) from None
        return text
    return value


def _names(text: str) -> list[str]:
    """Return the labels of --labels: a,b,c or @FILE with one on each line."""
    if not text.startswith("@"):
        names = [name.strip() for name in text.removesuffix(",").split(",")]
        if "" in names:
            raise SettingsError(f"--labels {text}: name {names.index('') + 1} is empty")
        return names
    try:
        lines = Path(text[1:]).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise SettingsError(f"--labels {text}: {reason}") from None
    return [line.strip() for line in lines if line.strip()]
