"""Commands that tell what happens on the server, and what has happened."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import (
    Directory,
    Json,
    console,
    data_console,
    lineage_of,
    made_table,
    show_table,
    table,
    trained_of,
    with_given_directory,
)
from cloud_server.monitoring.run_words import doubts, held_out, outcome_of_run, shown_model
from fleet_model.errors import ConnectionFailed, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Set

    from rich.console import Console, RenderableType
    from rich.table import Table

    from cloud_server.cli.admin_client import AdminClient
    from cloud_server.models.release_log import Release
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.round_record import RoundRecord

WATCH_S = 1.0  # between looks
RUNS_SHOWN = 5
ROUNDS_SHOWN = 50


def status(
    directory: Directory,
    watch: Annotated[bool, typer.Option("--watch", help="look again every second")] = False,
    json_output: Json = False,
) -> None:
    """Show robots, runs, versions of the running server, and say what happened."""
    from cloud_server.cli.admin_client import AdminClient
    from cloud_server.state.directory import ServerDirectory

    client = AdminClient(ServerDirectory(directory))
    screen = data_console()
    if watch:
        _watch(client, screen, json_output=json_output)
    elif json_output:
        typer.echo(json.dumps(client.status()))
    else:
        _show(screen, client.status())


def report(
    directory: Directory,
    file: Annotated[Path, typer.Option("--out", help="HTML file")] = Path("report.html"),
    channel: Annotated[str, typer.Option(help="of a channel that is trained by itself")] = "",
) -> None:
    """Write one page on what the fleet has learned: charts, robots, costs; it loads nothing."""
    from cloud_server.report.fleet import write_fleet_report

    rounds = write_fleet_report(trained_of(directory, channel), file)
    typer.echo(f"{file}: {rounds} rounds")


def history(
    directory: Directory,
    run: Annotated[str | None, typer.Option(help="only the rounds of this run")] = None,
    channel: Annotated[
        str | None, typer.Option(help="what is trained for it; default: publish.channel")
    ] = None,
    last: Annotated[
        int | None, typer.Option(min=1, help=f"so many of the newest rounds  [{ROUNDS_SHOWN}]")
    ] = None,
    all_rounds: Annotated[bool, typer.Option("--all", help="show every round")] = False,
    json_output: Json = False,
    csv_output: Annotated[
        bool, typer.Option("--csv", help="print CSV to stdout: one row per robot of each round")
    ] = False,
) -> None:
    """Show the newest closed rounds; --json and --csv give all of them. The server need not run."""
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.history import ClosedRounds, write_csv

    if json_output and csv_output:
        raise SettingsError("--json and --csv: choose one")
    server_dir = ServerDirectory(directory)
    server_dir.require()
    lineages = [server_dir.trained() if channel is None else lineage_of(directory, channel)]
    if run is not None and channel is None:  # a run is of one channel
        lineages += server_dir.lineages()
    everything = all_rounds or (last is None and (json_output or csv_output))
    newest = None if everything else last or ROUNDS_SHOWN
    for lineage in lineages:
        records = ClosedRounds(lineage, run, newest=newest)
        if is_found := next(iter(records), None) is not None:
            break
    if run is not None and not is_found:
        raise SettingsError(
            f"--run {run}: no round of it has closed; `cloud-server history {directory}` shows "
            "the runs"
        )
    if csv_output:
        write_csv(records, sys.stdout)
    elif json_output:
        _print_json(records, _releases(lineage))
    else:
        _show_rounds(list(records), newest, _releases(lineage))


def _show_rounds(
    shown: "list[RoundRecord]", newest: int | None, releases: "Mapping[int, Release]"
) -> None:
    columns = ("run", "round", "version", "accepted", "late", "seconds", "held out", "left out")
    table(columns, [_row(record) for record in shown])
    if shown:
        told = [one for version, one in releases.items() if version >= shown[0].version]
        lines = [with_given_directory(line) for one in told for line in one.sentences()]
        for line in (*doubts(shown[-1].as_json()), *lines):
            typer.echo(line)
    if newest is not None and len(shown) >= newest:
        console().print(f"the newest {newest} rounds; --all shows every round", soft_wrap=True)


def _releases(lineage: "ServerDirectory") -> "Mapping[int, Release]":
    from cloud_server.models.release_log import ReleaseLog

    return ReleaseLog(lineage.releases).by_version()


def _print_json(records: "Iterable[RoundRecord]", releases: "Mapping[int, Release]") -> None:
    """Print one JSON array, a round at a time, with what became of the version that it made."""
    between = "["
    for record in records:
        release = releases.get(record.version)
        told = {"release": None if release is None else release.model_dump()}
        typer.echo(between + json.dumps(record.as_json() | told), nl=False)
        between = ", "
    typer.echo("[]" if between == "[" else "]")


def _row(record: "RoundRecord") -> tuple[str, ...]:
    accepted = sum(robot.accepted for robot in record.robots)
    numbers = (record.round, record.version, f"{accepted} of {record.asked}", record.late)
    told = {name: getattr(record, name) for name in ("metrics", "held_out", "spread")}
    left_out = str(sum(record.left_out.values()) or "-")
    return record.run, *map(str, numbers), f"{record.seconds:.1f}", held_out(told), left_out


def _watch(client: "AdminClient", screen: "Console", *, json_output: bool) -> None:
    """Look until Ctrl-C; a server that restarts is waited for."""
    from rich.live import Live

    if screen.is_terminal and not json_output:
        with Live(console=screen, auto_refresh=False) as live:
            for answer in _looks(client):
                live.update(_view(answer), refresh=True)
    for answer in _looks(client):
        if json_output:
            typer.echo(json.dumps(answer))
        else:
            _show(screen, answer)


def _show(screen: "Console", answer: dict[str, Any]) -> None:
    for made in _tables(answer):
        show_table(screen, made)
    for line in answer["words"]:  # not wrapped: it may hold a command to copy
        screen.out(line)


def _looks(client: "AdminClient") -> "Iterator[dict[str, Any]]":
    while True:
        try:
            yield client.status()
        except ConnectionFailed as error:
            yield {"robots": [], "runs": [], "words": [str(error)]}
        time.sleep(WATCH_S)


def _view(answer: dict[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    return Group(*_tables(answer), *(Text(line) for line in answer["words"]))


def _tables(answer: dict[str, Any]) -> "tuple[Table, Table]":
    failed = {
        robot["name"]
        for robot in (answer.get("last_round") or {}).get("robots", ())
        if robot["verdict"] == "failed"
    }
    return _robots(answer["robots"], failed), _runs(answer["runs"][: -RUNS_SHOWN - 1 : -1])


def _robots(robots: list[dict[str, Any]], failed: "Set[str]") -> "Table":
    from cloud_server.state.clock import age

    rows = []
    for robot in robots:
        seen, version = robot["last_seen_s"], robot["active_version"]
        report = robot["report"] or {}
        examples, battery = report.get("examples"), report.get("battery")
        cells = (
            robot["name"],
            robot["site"],
            robot["state"],
            _trains_now(robot, report.get("busy", ""), failed),
            "never" if seen is None else f"{age(seen)} ago",
            shown_model(version, report.get("trial")),
            "-" if examples is None else str(examples),
            "-" if battery is None else f"{battery:.0f} %",
        )
        rows.append(cells)
    columns = ("robot", "site", "state", "trains now", "seen", "version", "examples", "battery")
    return made_table(columns, rows)


def _trains_now(robot: dict[str, Any], busy: str, failed: "Set[str]") -> str:
    if busy:
        return f"busy: {busy}"
    if robot.get("away"):
        return "offline"
    if not robot["online"]:
        return "no"
    return "yes, but failed last time" if robot["name"] in failed else "yes"


def _runs(runs: list[dict[str, Any]]) -> "Table":
    from cloud_server.state.clock import age

    rows = []
    channels = {run.get("channel") for run in runs}
    for run in runs:
        cells = (
            run["id"],
            run["state"],
            f"{age(max(time.time() - run['started_at'], 0))} ago",
            f"{run['rounds_closed']} of {run['rounds']}",
            outcome_of_run(run, channel=len(channels) > 1),
        )
        rows.append(cells)
    return made_table(("run", "state", "began", "rounds closed", "published"), rows)
