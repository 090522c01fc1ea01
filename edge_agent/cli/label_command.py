"""`edge-agent label`."""

from pathlib import Path
from typing import Annotated

import typer

from edge_agent.cli.frame_commands import Json
from edge_agent.cli.options import CONFIG, Config

_PORT = 8765


def label(
    config: Config = CONFIG,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="of 127.0.0.1; 0: any that is free")
    ] = _PORT,
    socket: Annotated[
        Path | None, typer.Option(help="serve on this unix socket, not on a port")
    ] = None,
    by: Annotated[
        str, typer.Option("--as", metavar="NAME", help="who labels; default: the user")
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
    json_output: Json = False,
) -> None:
    """Show a page on which a person labels the frames that this robot has kept, until Ctrl-C.

    Frames and labels stay on this robot; the next round learns from them.

    Example: edge-agent label --config robot/agent.toml
    """
    from edge_agent.labeling.service import LabelOptions
    from edge_agent.labeling.service import label as serve_page
    from edge_agent.robot.logs import log_to_stderr
    from edge_agent.robot.settings import load_settings

    settings = load_settings(config)
    log_to_stderr()
    options = LabelOptions(
        port=port,
        socket=socket,
        by=by,
        classes=tuple(name.strip() for name in classes.split(",") if name.strip()),
        boxes=boxes,
        everything=everything,
        json=json_output,
    )
    serve_page(settings, options, typer.echo)
