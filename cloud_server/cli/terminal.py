"""What all commands of cloud-server share: arguments, tables on stdout, a console on stderr."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.monitoring.run_words import doubts
from fleet_model.errors import SettingsError, WithheldError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.settings import PublishSettings


def _remember(directory: Path) -> Path:
    _given.append(directory)
    return directory


_given: list[Path] = []  # the DIR of this command line
Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="server directory", callback=_remember)
]
Json = Annotated[bool, typer.Option("--json", help="print JSON to stdout")]
UNFOLDED = 100_000  # columns: wider than any table


def with_given_directory(text: str) -> str:
    """Return a message whose commands name the directory that the operator has typed."""
    from cloud_server.state.words import with_directory

    return with_directory(text, _given[-1]) if _given else text


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout."""
    show_table(data_console(), made_table(columns, rows))


def show_table(screen: "Console", made: "Table") -> None:
    """Print a table; where its words do not fit, a line for each cell, for rich would cut them."""
    from fleet_model.command_line.table import records

    frame = 3 * len(made.columns) + 1
    needed = sum(column.min_width or 0 for column in made.columns) + frame
    if needed <= screen.width:
        screen.print(made)
        return
    for line in records(made):
        screen.print(line, soft_wrap=True)  # a key stays in one piece


def made_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    """Return a table that folds between words only: the next command may need any of them."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    from fleet_model.errors import one_line

    rows = [[one_line(cell) for cell in row] for row in rows]  # some words come from robots
    made = Table()
    for name, *cells in zip(columns, *rows, strict=True):
        word = max(map(cell_len, " ".join([name, *cells]).split()))
        # no_wrap: what a narrow terminal lacks is taken from columns that can give it
        made.add_column(name, min_width=word, no_wrap=max(map(cell_len, [name, *cells])) <= word)
    for row in rows:
        made.add_row(*map(Text, row))  # Text: a robot's own words are no markup
    return made


def data_console() -> "Console":
    """Return the console on stdout; nothing is folded where that is a file or a pipe."""
    from rich.console import Console

    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen.width = UNFOLDED
    return screen


def console() -> "Console":
    """Return the console for people: stdout is for data."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(line: str) -> None:
    """Tell a person something while stdout is for data."""
    console().print(line, markup=False, soft_wrap=True)


def tell_alike(labels: Sequence[str]) -> None:
    """Tell of labels that differ in case alone: mostly one of them is a typing error."""
    alike: dict[str, list[str]] = {}
    for label in labels if isinstance(labels, list | tuple) else ():
        alike.setdefault(str(label).casefold(), []).append(str(label))
    for same in alike.values():
        if len(same) > 1:
            console().print(
                f"warning: the labels {', '.join(same)} differ in upper and lower case alone; "
                "they are learned as different ones",
                style="yellow", markup=False, soft_wrap=True,
            )  # fmt: skip


@contextmanager
def with_steps(what: str) -> Iterator[Callable[[str], None]]:
    """Give what shows the steps of a long command while it works; notes among them stay."""
    from cloud_server.models.backend import NOTE

    screen = console()
    with screen.status(what) as status:

        def tell(step: str) -> None:
            if step.startswith(NOTE):
                screen.print(step, markup=False, soft_wrap=True)
            else:
                status.update(f"{what}: {step} ...")

        yield tell


def release_lines(directory: Path, run: Mapping[str, Any]) -> list[str]:
    """Return what has become of the version that a run has made, with commands to copy."""
    from cloud_server.models.release_log import ReleaseLog
    from cloud_server.state.directory import ServerDirectory

    if not run.get("release"):
        return []
    lineage = ServerDirectory(directory).of(run["channel"])
    release = ReleaseLog(lineage.releases).by_version().get(run["release"]["version"])
    return [] if release is None else list(map(with_given_directory, release.sentences()))


def tell_release(directory: Path, run: Mapping[str, Any]) -> None:
    """Print what is to be known of a run's model; raise WithheldError if it is not published."""
    lines = release_lines(directory, run)
    if (run.get("release") or {}).get("kind") == "withheld":
        raise WithheldError("; ".join(lines))
    for line in lines:
        console().print(line, markup=False, soft_wrap=True)


def show_evaluation(run: Mapping[str, Any]) -> None:
    """Print what robots measured in an evaluation that has finished."""
    from fleet_model.protocol.example_counts import is_count

    record = run["measured"]
    told = {name for robot in record["robots"] for name in robot["metrics"]}
    names = sorted(name for name in told if not is_count(name))
    rows = [
        (
            robot["name"],
            robot["site"],
            robot["outcome"],
            str(robot["num_examples"]) if robot["metrics"] else "-",
            *(_number(robot["metrics"].get(name)) for name in names),
        )
        for robot in record["robots"]
    ]
    table(("robot", "site", "outcome", "held-out examples", *names), rows)
    means = ", ".join(f"{name} {value:.3f}" for name, value in record["metrics"].items())
    typer.echo(f"version {record['version']}, mean over examples: {means or 'not measured'}")
    for line in doubts(record):
        typer.echo(line)


def show_told(run: Mapping[str, Any]) -> None:
    """Print who has told a profile, and who has not, and why."""
    rows = [
        (one["name"], one["site"], one["outcome"], str(one["num_examples"] or "-"))
        for one in run["measured"]["robots"]
    ]
    table(("robot", "site", "outcome", "records"), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def lineage_of(directory: Path, channel: str) -> "ServerDirectory":
    """Return the directory with what is trained for a channel that the operator names."""
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.model_store import DirectoryStore

    server_dir = ServerDirectory(directory)
    server_dir.require()
    own = server_dir.of(channel)
    if not own.lineage and channel not in DirectoryStore(server_dir.store).channels():
        raise SettingsError(
            f"--channel {channel}: nothing is published on it; `cloud-server models list "
            f"{directory}` shows the channels"
        )
    return own


def trained_of(directory: Path, channel: str) -> "ServerDirectory":
    """Return the directory with what is trained for a channel; "" is what its server trains."""
    from cloud_server.state.directory import ServerDirectory

    if channel:
        return lineage_of(directory, channel)
    server_dir = ServerDirectory(directory)
    server_dir.require()
    return server_dir.trained()


def trained_and_publish(directory: Path, channel: str) -> "tuple[ServerDirectory, PublishSettings]":
    """Return what is trained for a channel, as `trained_of`, and how it is published."""
    from cloud_server.state.settings import load_settings

    server_dir = trained_of(directory, channel)
    settings = load_settings(server_dir.settings).publish
    return server_dir, settings.model_copy(update={"channel": channel or settings.channel})
