"""`edge-agent label`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from edge_agent.cli.frame_commands import Json, progress_bar
from edge_agent.cli.options import CONFIG, Config
from fleet_model.errors import SettingsError

_PORT = 8765
_NICENESS = 10  # of a teacher: the robot's own work comes first


def label(
    config: Config = CONFIG,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="of 127.0.0.1; 0: any that is free")
    ] = _PORT,
    socket: Annotated[
        Path | None, typer.Option(help="serve on this unix socket, not on a port")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--as", metavar="NAME", help="who labels; default: the user, the teacher's file"
        ),
    ] = "",
    classes: Annotated[
        str,
        typer.Option(help="names, with commas between; needed without a model, else further ones"),
    ] = "",
    boxes: Annotated[
        bool | None, typer.Option("--boxes/--no-boxes", help="default: what the model answers")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="also frames that have a label already: to correct it")
    ] = False,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            help="no page: this model labels what no person has, where it is surely right",
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="of the teacher: fp32 or int8")] = "fp32",
    most: Annotated[
        int | None, typer.Option(min=1, help="frames that the teacher is asked about; default: all")
    ] = None,
    forget: Annotated[
        str, typer.Option(metavar="NAME", help="take back all labels of this teacher")
    ] = "",
    json_output: Json = False,
) -> None:
    """Show a page on which a person labels the frames that this robot has kept, until Ctrl-C.

    Or, with --teacher, let another model label those that no person has. Frames and labels stay on
    this robot; the next round learns from them.

    Example: edge-agent label --config robot/agent.toml
    """
    from edge_agent.robot.logs import log_to_stderr
    from edge_agent.robot.settings import load_settings

    if (teacher or forget) and (socket or everything or port != _PORT):
        raise SettingsError(
            "--teacher and --forget show no page: leave out --port, --socket, --all"
        )
    if teacher and forget:
        raise SettingsError("--teacher labels and --forget takes back: choose one")
    settings = load_settings(config)
    log_to_stderr()
    chosen = tuple(name.strip() for name in classes.split(",") if name.strip())
    if forget:
        from edge_agent.labeling.teacher.lesson import forget as take_back

        take_back(settings, forget, typer.echo, as_json=json_output)
        return
    if teacher:
        from edge_agent.labeling.service import user
        from edge_agent.labeling.teacher.lesson import LessonOptions, teach

        wish = LessonOptions(
            teacher=teacher,
            name=by,
            by=user(),
            precision=precision,
            classes=chosen,
            boxes=boxes,
            most=most,
            json=json_output,
        )
        os.nice(_NICENESS)
        with progress_bar("frames", lambda: 0) as show:
            teach(settings, wish, typer.echo, show)
        return
    from edge_agent.labeling.service import LabelOptions
    from edge_agent.labeling.service import label as serve_page

    options = LabelOptions(
        port=port,
        socket=socket,
        by=by,
        classes=chosen,
        boxes=boxes,
        everything=everything,
        json=json_output,
    )
    serve_page(settings, options, typer.echo)
