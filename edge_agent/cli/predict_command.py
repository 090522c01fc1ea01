"""`edge-agent predict`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_agent.cli.frame_commands import LABELS, Json
from edge_agent.cli.options import CONFIG, Config
from edge_agent.data.frames.source import is_live, source_path
from fleet_model.errors import BundleError, LossError


def predict(
    path: Annotated[
        Path | None,
        typer.Argument(
            parser=source_path,
            metavar="[PATH]",
            help="images, a data set, a bag, video, ros:/topic, rtsp://host/stream or /dev/video0; "
            "a table of texts (CSV, JSON lines, Parquet) or a folder of them; "
            "default: this robot's own examples",
        ),
    ] = None,
    config: Config = CONFIG,
    bundle: Annotated[
        Path | None, typer.Option(help="bundle directory; default: the active one")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32 or int8; default: the settings' own")
    ] = None,
    topic: Annotated[str, typer.Option(help="camera topic; empty: the only one")] = "",
    label_topic: Annotated[
        str,
        typer.Option(
            *LABELS,
            help="true labels: a topic of the bag, a CSV, or a data set; default: as in agent.toml",
        ),
    ] = "",
    text_column: Annotated[
        list[str] | None,
        typer.Option(help="column of a table with the text; repeatable; default: found out"),
    ] = None,
    label_column: Annotated[
        str, typer.Option(help="column of a table with the true label; default: found out")
    ] = "",
    csv: Annotated[Path | None, typer.Option(help="write the CSV here, not to stdout")] = None,
    annotate: Annotated[
        Path | None, typer.Option(help="write images with the prediction drawn in here")
    ] = None,
    confusion: Annotated[
        Path | None, typer.Option(help="write the confusion matrix here (PNG; needs labels)")
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(help="write precision against recall, or what else the model has, here (PNG)"),
    ] = None,
    coco: Annotated[
        Path | None,
        typer.Option(help="write all boxes here as COCO results, and NAME.images.json beside it"),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="list and draw no boxes with less; default: the model's"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="stop after this many frames")] = None,
    json_output: Json = False,
) -> None:
    """Run the active model on your own images, bags or texts: CSV, JSON, pictures, metrics.

    Example: edge-agent predict photos/ --config robot/agent.toml --annotate out/
    """
    from edge_agent.examples.texts.reading import columns_for
    from edge_agent.models.predict import open_bundle, run_predict
    from edge_agent.models.predict_options import PredictOptions
    from fleet_model.following import FollowingEngine

    # What is live runs for long: a new model takes over. All else stays with one version.
    follows = bundle is None and path is not None and is_live(path)
    source, usual_labels = None, ""
    if bundle is None or path is None:
        from edge_agent.examples.source import source_of
        from edge_agent.robot.settings import load_settings

        settings = load_settings(config)
        source, usual_labels = source_of(settings, read_only=True), settings.examples.label_topic
    if bundle is None:
        from edge_agent.models.deploy import Models

        bundle = Models(settings.state / "models").current
        if not bundle.exists():
            raise BundleError(
                "no model is installed yet: let `edge-agent run` fetch one, or --bundle"
            )
        bundle = settings.state / "models" / "current" if follows else bundle.resolve()
        precision = precision or settings.engine.precision
    columns, encoding = columns_for(source, text_column or [], label_column)
    options = PredictOptions(
        path=path,
        source=source,
        bundle=bundle,
        precision=precision or "fp32",
        topic=topic,
        label_topic=label_topic,
        usual_labels=usual_labels,
        json=json_output,
        csv_file=csv,
        annotate=annotate,
        confusion=confusion,
        curves=curves,
        coco=coco,
        min_score=min_score,
        limit=limit,
        columns=columns,
        encoding=encoding,
    )
    summary = run_predict(options, sys.stdout, FollowingEngine if follows else open_bundle)
    if not json_output:
        for line in (summary.sentence(), *summary.table()):
            typer.echo(line, err=csv is None)  # stdout has the CSV
    if summary.losses:
        raise LossError(f"done, with losses: {summary.losses}")
