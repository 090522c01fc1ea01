"""The command that makes a trained classifier of pictures smaller and faster."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import Json, say, table, with_steps
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from cloud_server.compression.recipes.sweep import Limits
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.settings import PublishSettings


def compress(
    checkpoint: Annotated[
        Path, typer.Argument(help=".keras file of a classifier, as `models export` writes it")
    ],
    pipeline: Annotated[Path, typer.Option(help="TOML file: pictures, and the steps")],
    out: Annotated[Path, typer.Option(help="folder for the results")] = Path("compressed"),
    work: Annotated[Path, typer.Option(help="folder of finished steps; may be removed")] = Path(
        ".compress"
    ),
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP.KEY=A,B", help="try each value, and keep the best; repeatable"),
    ] = None,
    max_size: Annotated[str, typer.Option(help="of the picked file: 2MB, 800kB, bytes")] = "",
    max_latency_ms: Annotated[
        float | None, typer.Option(help="of the picked file, p50 on this machine")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="of accuracy, 0 to 1: the smallest is picked that keeps it"),
    ] = None,
    publish: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="server directory whose robots get the picked model, to try it"
        ),
    ] = None,
    channel: Annotated[str, typer.Option(help="whose robots (default: publish.channel)")] = "",
    json_output: Json = False,
) -> None:
    """Distill, prune, quantize, export and measure; only what is not done yet is done.

    Writes pipeline.json, table.md, plot.png and models/.
    Example: cloud-server compress teacher.keras --pipeline small.toml --out small
    """
    from cloud_server.compression.recipes.pipeline import CompressJob
    from cloud_server.compression.recipes.sweep import limits_of
    from cloud_server.pipelines.child import run_in_child

    job = CompressJob(
        checkpoint=checkpoint,
        pipeline=pipeline,
        out=out,
        work=work,
        sweep=tuple(sweep or ()),
        for_robots=publish is not None,
        limits=limits_of(max_size=max_size, max_latency_ms=max_latency_ms, max_drop=max_drop),
    )
    fleet = None if publish is None else _fleet(publish, channel, job.limits)
    with with_steps("compress") as tell:
        told = run_in_child(job, tell, "cloud_server.compression.recipes")
    version = None
    if fleet is not None:
        from cloud_server.compression.recipes.publishing import publish_picked

        version = publish_picked(*fleet, told, out)
    if json_output:
        typer.echo(json.dumps({**told, "version": version}))
        return
    columns = ("model", "size", "accuracy", "macro F1", "p50", "p95", "")
    table(columns, [_row(model) for model in told["models"]])
    for one in told["refused"]:
        say(f"refused: {one['what']}: {one['why']}")
    if told["picked"]:
        picked = next(model for model in told["models"] if model["name"] == told["picked"])
        typer.echo(f"picked: {picked['name']}, {out / picked['file']}")
    say(f"{out}: pipeline.json, table.md, plot.png and the files in models/")
    if fleet is not None:
        typer.echo(
            f"channel {fleet[1].channel} offers version {version}: robots try it, and run it if it "
            "is no worse there than what they have. Nobody trains it: rounds go on with the "
            f"fleet's own model. `cloud-server models rollback {publish}` takes it back"
        )


def _fleet(
    directory: Path, channel: str, limits: "Limits"
) -> "tuple[ServerDirectory, PublishSettings]":
    """Return where a picked model goes; raises FleetError before the work, not after it."""
    from cloud_server.cli.engines.import_command import of_channel
    from cloud_server.compression.recipes.publishing import labels_of_fleet
    from cloud_server.state.settings import load_settings

    if not limits.any:
        raise SettingsError(
            "--publish sends the picked model, and nothing says which: give --max-size, "
            "--max-latency-ms or --max-drop"
        )
    server_dir = of_channel(directory, channel)
    labels_of_fleet(server_dir)
    settings = load_settings(server_dir.settings).publish
    return server_dir, settings.model_copy(update={"channel": channel or settings.channel})


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    from cloud_server.compression.measuring import sized

    return (
        model["name"],
        sized(model["size_bytes"]),
        f"{model['accuracy']:.3f}",
        f"{model['macro_f1']:.3f}",
        f"{model['p50_ms']:.2f} ms",
        f"{model['p95_ms']:.2f} ms",
        "Pareto front" if model["front"] else "",
    )
