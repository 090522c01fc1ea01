"""What all commands of cloud-server share: arguments, tables on stdout, a console on stderr."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="server directory")]
Json = Annotated[bool, typer.Option("--json", help="print JSON to stdout")]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout."""
    from rich.console import Console
    from rich.table import Table

    made = Table(*columns)
    for row in rows:
        made.add_row(*row)
    Console().print(made)


def console() -> "Console":
    """Return the console for people: stdout is for data."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def held_out(metrics: Mapping[str, float]) -> str:
    """Return a round's scores before and after it; one that was not finite is not there."""
    scores = (
        f"{name} {metrics[f'{name}_before']:.3f} -> {metrics[f'{name}_after']:.3f}"
        for name in ("loss", "accuracy")
        if {f"{name}_before", f"{name}_after"} <= metrics.keys()
    )
    return ", ".join(scores) or "not measured"
