"""Commands about training on one machine: pipeline run."""

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud_server.cli.pipelines import kubeflow_commands
from cloud_server.cli.terminal import Json, say, with_steps
from fleet_model.errors import SettingsError

app = typer.Typer(
    help="train a text classifier on this machine; departments as a Kubeflow pipeline"
)
app.add_typer(kubeflow_commands.app, name="kubeflow")
_READING, _TRAINING, _PLACES = "Texts", "Training", "Places"


@app.callback()
def pipeline() -> None:
    """Train a text classifier on this machine; departments as a Kubeflow pipeline."""


@app.command("run")
def pipeline_run(
    out: Annotated[str, typer.Argument(help="folder for the results, or s3://bucket/folder")],
    data: Annotated[
        str, typer.Option(help="table, folder of tables, s3://..., or owner/name on a hub")
    ],
    model: Annotated[str, typer.Option(help="folder of an encoder, s3://..., or a name on a hub")],
    text_column: Annotated[
        list[str] | None, typer.Option(help="default: found out", rich_help_panel=_READING)
    ] = None,
    label_column: Annotated[
        str, typer.Option(help="default: found out", rich_help_panel=_READING)
    ] = "",
    labels: Annotated[
        str,
        typer.Option(
            help="comma-separated, in the order of the outputs; another one is refused; default: "
            "those of the data",
            rich_help_panel=_READING,
        ),
    ] = "",
    encoding: Annotated[
        str, typer.Option(help="of text files, e.g. cp1250", rich_help_panel=_READING)
    ] = "",
    held_out: Annotated[
        float,
        typer.Option(
            help="share for validation, where the data have no such part", rich_help_panel=_READING
        ),
    ] = 0.2,
    max_length: Annotated[
        int, typer.Option(help="tokens of a text that the model sees", rich_help_panel=_READING)
    ] = 128,
    epochs: Annotated[int, typer.Option(rich_help_panel=_TRAINING)] = 3,
    batch_size: Annotated[int, typer.Option(rich_help_panel=_TRAINING)] = 16,
    eval_batch_size: Annotated[int, typer.Option(rich_help_panel=_TRAINING)] = 64,
    learning_rate: Annotated[
        float, typer.Option(help="of AdamW; falls to zero", rich_help_panel=_TRAINING)
    ] = 5e-5,
    weight_decay: Annotated[
        float, typer.Option(help="of kernels", rich_help_panel=_TRAINING)
    ] = 0.0,
    evaluate: Annotated[
        str,
        typer.Option(
            help="when to measure besides the end: no, epoch, steps", rich_help_panel=_TRAINING
        ),
    ] = "epoch",
    save: Annotated[
        str,
        typer.Option(
            help="when to keep what a killed run resumes from: no, epoch, steps",
            rich_help_panel=_TRAINING,
        ),
    ] = "epoch",
    every: Annotated[
        int, typer.Option(help="steps, for --evaluate and --save", rich_help_panel=_TRAINING)
    ] = 500,
    seed: Annotated[int, typer.Option(rich_help_panel=_TRAINING)] = 0,
    device: Annotated[
        str,
        typer.Option(help="cpu, cuda, cuda:1; auto: a GPU if any", rich_help_panel=_TRAINING),
    ] = "auto",
    work: Annotated[
        Path,
        typer.Option(help="folder of finished steps; may be removed", rich_help_panel=_PLACES),
    ] = Path(".pipeline"),
    flyte: Annotated[
        str | None,
        typer.Option(
            metavar="local|FILE",
            help="run as tasks of Flyte: on this machine, or on the cluster of this file",
            rich_help_panel=_PLACES,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="of buckets, e.g. endpoint_url=https://minio.example; repeatable",
            rich_help_panel=_PLACES,
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Prepare, tokenize, train and measure; only what is not done yet is done.

    Writes model/, metrics.json, confusion_matrix.png and pipeline.json.
    Example: cloud-server pipeline run out --data tickets.csv --model minilm/
    """
    from cloud_server.pipelines.child import run_in_child
    from cloud_server.pipelines.options import PipelineJob, pipeline_options

    options = pipeline_options(
        text=tuple(text_column or ()),
        label=label_column,
        labels=tuple(filter(None, (name.strip() for name in labels.split(",")))),
        encoding=encoding,
        held_out=held_out,
        max_length=max_length,
        epochs=epochs,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        evaluate=evaluate,
        save=save,
        every=every,
        seed=seed,
        device=device,
    )
    job = PipelineJob(
        data=data,
        model=model,
        out=out,
        work=work,
        bucket=_pairs(option or ()),
        options=options,
        flyte=flyte,
    )
    with with_steps("pipeline") as tell:
        told = run_in_child(job, tell)
    if json_output:
        typer.echo(json.dumps(told))
        return
    typer.echo(
        f"{out}: accuracy {told['accuracy']:.3f}, macro F1 {told['macro_f1']:.3f} of "
        f"{told['examples']['validation']} texts"
    )
    names = ",".join(told["labels"])
    say(
        "next: cloud-server init fleet --workload text-classifier --labels "
        f"{shlex.quote(names)} --checkpoint {shlex.quote(out.rstrip('/'))}/model"
    )


def _pairs(given: Iterable[str]) -> dict[str, Any]:
    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not key or not equals:
            raise SettingsError(f"--option {one}: expected KEY=VALUE")
        found[key] = value
    return found
