"""The command that makes a trained classifier of pictures smaller and faster."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud_server.cli.terminal import Json, say, table, with_steps


def compress(
    checkpoint: Annotated[
        Path, typer.Argument(help=".keras file of a classifier, as `models export` writes it")
    ],
    pipeline: Annotated[Path, typer.Option(help="TOML file: pictures, and the steps")],
    out: Annotated[Path, typer.Option(help="folder for the results")] = Path("compressed"),
    work: Annotated[Path, typer.Option(help="folder of finished steps; may be removed")] = Path(
        ".compress"
    ),
    json_output: Json = False,
) -> None:
    """Distill, prune, quantize, export and measure; only what is not done yet is done.

    Writes pipeline.json, table.md, plot.png and models/.
    Example: cloud-server compress teacher.keras --pipeline small.toml --out small
    """
    from cloud_server.compression.recipes.pipeline import CompressJob
    from cloud_server.pipelines.child import run_in_child

    job = CompressJob(checkpoint=checkpoint, pipeline=pipeline, out=out, work=work)
    with with_steps("compress") as tell:
        told = run_in_child(job, tell, "cloud_server.compression.recipes")
    if json_output:
        typer.echo(json.dumps(told))
        return
    columns = ("model", "size", "accuracy", "macro F1", "p50", "p95", "")
    table(columns, [_row(model) for model in told["models"]])
    say(f"{out}: pipeline.json, table.md, plot.png and the files in models/")


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
