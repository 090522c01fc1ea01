"""`cloud-server compare`: models answer the same input in a browser, without a fleet."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_server.cli.terminal import Json, say
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from cloud_server.console.compare.lineup import Lineup

NEEDED = ("fastapi", "jinja2", "uvicorn")


def compare(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="A B...", help="bundle folders, or a model file in one: that engine of it"
        ),
    ],
    open_browser: Annotated[
        bool, typer.Option("--open", help="open it in the browser of this machine")
    ] = False,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="a data set that can be asked about as a whole: pictures in folders by class or "
            "with a manifest.csv, or tables of texts; as often as needed",
            show_default=False,
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one")] = 0,
    json_output: Json = False,
) -> None:
    """Show a page on which models answer the same picture or text, side by side.

    Until Ctrl-C or SIGTERM; on this machine alone. What is shown to the models is kept nowhere.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise SettingsError(
            f"the page needs {missing[0]}, which is not installed; run: "
            "pip install 'fleetlearn[web]'"
        )
    from cloud_server.console.compare.alone import serve_alone
    from cloud_server.console.compare.contenders import contenders

    def ready(url: str, lineup: "Lineup") -> None:
        names = [model["name"] for model in lineup.models]
        typer.echo(json.dumps({"url": url, "models": names}) if json_output else url)
        say(f"{', '.join(names)}; on this machine alone, until Ctrl-C")
        if open_browser and typer.launch(url) != 0:
            say("no browser could be opened here; open the link by hand")

    serve_alone(contenders(models), _by_name(data or ()), port, ready)


def _by_name(paths: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise SettingsError(f"--data {path}: there is no such file or folder")
        name = path.resolve().name
        found[name if name not in found else str(path)] = path
    return found
