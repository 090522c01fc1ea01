"""Commands over runs: train, follow, stop, resume, and when they begin by themselves.

Runs of a ServerApp apart (server_app.py) are read from the disk: no server of ours works on them.
"""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.runs.following import follow, round_lines
from cloud_server.cli.runs.known import (
    client_of,
    known_run,
    known_runs,
    newest_run,
    require_of_server,
    server_dir_of,
    with_robots,
)
from cloud_server.cli.terminal import (
    Directory,
    Json,
    console,
    release_lines,
    say,
    show_evaluation,
    show_told,
    table,
    tell_release,
    with_given_directory,
)
from cloud_server.monitoring.run_words import doubts, outcome_of_run
from fleet_model.errors import RoundError, SettingsError
from fleet_model.types import PROFILE

if TYPE_CHECKING:
    from cloud_server.cli.admin_client import AdminClient

runs = typer.Typer(no_args_is_help=True, help="Runs: several rounds, then a published model.")
schedule = typer.Typer(no_args_is_help=True, help="When runs begin by themselves.")
CLOSED_FORMS = ("ridge", "lda", "ncm", "off")
RunId = Annotated[
    str, typer.Argument(metavar="[ID]", help="as `runs list` shows it; default: the newest run")
]


def train(
    directory: Directory,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="federated rounds")] = 3,
    every: Annotated[
        str | None, typer.Option(help="again and again from now on: 30m, 24h, 7d")
    ] = None,
    continuous: Annotated[
        bool, typer.Option("--continuous", help="the next run begins when the last has ended")
    ] = False,
    closed_form: Annotated[
        str | None,
        typer.Option(
            "--closed-form",
            metavar="ridge|lda|ncm|off",
            help="make the head of sums in the first round  [start.closed_form, of a new fleet]",
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="do not wait for the run's end")] = False,
    json_output: Json = False,
) -> None:
    """Ask the running server for rounds, follow them, end when the new model is published."""
    from cloud_server.runs.schedule import parse_duration

    if every is not None and continuous:
        raise SettingsError("--every and --continuous: choose one")
    if closed_form is not None and (every is not None or continuous):
        raise SettingsError(
            "--closed-form is of one run, and --every and --continuous begin more; start it by "
            "itself, or set start.closed_form in server.toml"
        )
    if closed_form is not None and closed_form not in CLOSED_FORMS:
        raise SettingsError(f"--closed-form {closed_form}: choose {', '.join(CLOSED_FORMS)}")
    every_s = None if every is None else parse_duration(every)
    client = client_of(directory)
    run = client.start_run(rounds, every_s=every_s, continuous=continuous, closed_form=closed_form)
    _see_to_the_end(directory, client, run, detach=detach, json_output=json_output)


@runs.command("list")
def runs_list(directory: Directory, json_output: Json = False) -> None:
    """List the newest runs; the server need not run."""
    known = known_runs(directory)
    if json_output:
        typer.echo(json.dumps(known))
        return
    several = len({run["channel"] for run in known}) > 1
    rows = [
        (
            run["id"],
            _state(run),
            f"{run['rounds_closed']} of {run['rounds']}",
            outcome_of_run(run, channel=several),
            f"{run['seconds']:.0f} s",
            time.strftime("%Y-%m-%d %H:%M", time.gmtime(run["started_at"])),
        )
        for run in known
    ]
    table(("run", "state", "rounds closed", "published", "took", "began (UTC)"), rows)
    for run in known:
        if run["error"]:  # a sentence; as a column it would squeeze the others
            error = with_given_directory(run["error"])
            typer.echo(f"run {run['id']} {_state(run)}: {error}")


@runs.command("show")
def runs_show(directory: Directory, run_id: RunId = "", json_output: Json = False) -> None:
    """Show one run and its newest rounds; the server need not run."""
    run = known_run(directory, run_id or newest_run(directory))
    if json_output:
        typer.echo(json.dumps(with_robots(directory, run)))
        return
    typer.echo(f"run {run['id']}: {_state(run)}, {run['rounds_closed']} of {run['rounds']} rounds")
    for record in run["closed"]:
        for line in round_lines(record):
            typer.echo(line)
    for line in doubts(run["closed"][-1]) if run["closed"] else ():
        typer.echo(line)
    if run.get("measured"):
        (show_told if run["kind"] == PROFILE else show_evaluation)(run)
    for line in (*release_lines(directory, run), run["error"]):
        if line:
            typer.echo(with_given_directory(line))


@runs.command("stop")
def runs_stop(directory: Directory, run_id: RunId = "") -> None:
    """End a run soon: the open round is left, what has closed is published."""
    run_id = run_id or newest_run(directory)
    require_of_server(directory, run_id)
    run = client_of(directory).stop_run(run_id)
    say(
        f"run {run['id']} ends after {run['rounds_closed']} closed rounds; to go on later: "
        f"cloud-server runs resume {directory} {run['id']}"
    )


@runs.command("resume")
def runs_resume(
    directory: Directory,
    run_id: RunId = "",
    detach: Annotated[bool, typer.Option("--detach", help="do not wait for the run's end")] = False,
    json_output: Json = False,
) -> None:
    """Go on with a run that failed or was stopped, at its next round."""
    run_id = run_id or newest_run(directory)
    require_of_server(directory, run_id)
    client = client_of(directory)
    run = client.resume_run(run_id)
    _see_to_the_end(directory, client, run, detach=detach, json_output=json_output)


@schedule.command("show")
def schedule_show(directory: Directory, json_output: Json = False) -> None:
    """Show when the next run begins; the server need not run."""
    from cloud_server.runs.run_store import RunStore
    from cloud_server.runs.schedule import ScheduleFile

    server_dir = server_dir_of(directory)
    found = ScheduleFile(server_dir.schedule).load()
    due_at = (
        None if found is None else max(found.due_at(RunStore(server_dir.runs).load()), time.time())
    )
    if json_output:
        told = None if found is None else {**found.model_dump(), "due_at": due_at}
        typer.echo(json.dumps(told))
    elif found is None:
        typer.echo(
            f"no schedule; runs begin with `cloud-server train {directory}`, with --every 24h "
            "again and again"
        )
    else:
        begins = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(due_at))
        typer.echo(f"{found.in_words()}; the next run is due {begins}")


@schedule.command("clear")
def schedule_clear(directory: Directory) -> None:
    """Begin no more runs; one that goes on is not stopped. The server need not run."""
    from cloud_server.runs.schedule import ScheduleFile

    cleared = ScheduleFile(server_dir_of(directory).schedule).clear()
    console().print("the schedule is cleared" if cleared else "there was no schedule")


def _state(run: dict[str, Any]) -> str:
    return f"{run['state']} (flwr run)" if run["apart"] else str(run["state"])


def _see_to_the_end(
    directory: Any,
    client: "AdminClient",
    run: dict[str, Any],
    *,
    detach: bool,
    json_output: bool,
) -> None:
    if not detach:
        say(f"run {run['id']} has begun; it goes on without this command")
        try:
            run = follow(client, run, say if json_output else typer.echo)
        except KeyboardInterrupt:
            say(
                f"run {run['id']} goes on on the server; "
                f"`cloud-server runs stop {directory} {run['id']}` ends it"
            )
            raise
    if json_output:
        typer.echo(json.dumps(with_robots(directory, run)))
    if detach:
        say(f"run {run['id']} has begun; see `cloud-server status {directory} --watch`")
        return
    if run["state"] != "finished":
        error = RoundError(f"run {run['id']}: {run['error']}")
        error.exit_code = run["exit_code"] or RoundError.exit_code
        raise error
    tell_release(directory, run)
    if not json_output:
        typer.echo(f"version {run['published_version']} is published after {run['seconds']:.1f} s")
