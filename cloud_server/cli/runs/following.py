"""Follow a run on the running server: what `train`, `runs resume` and `evaluate` tell meanwhile."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import typer

from cloud_server.cli.terminal import console
from cloud_server.monitoring.run_words import doubts, held_out
from fleet_model.errors import ConnectionFailed

if TYPE_CHECKING:
    from cloud_server.cli.admin_client import AdminClient

AWAY_S = 60.0  # a server that restarts is waited for
ACTIVE = ("waiting", "running", "publishing")
PATIENCE_S = 30.0  # until it is told for whom a round waits; then again after twice the time
MOST_REASONS, MOST_WORDS = 4, 80  # of robots that are missing in a round; characters of each reason
MOST_ON_BAR = 50  # characters


def follow(
    client: "AdminClient", run: dict[str, Any], say: Callable[[str], None] = typer.echo
) -> dict[str, Any]:
    """Poll a run until it has ended; a restart is waited for.

    `say` gets lines for every closed round, and for one that waits, ever more seldom; a progress
    bar is on stderr.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    screen = console()
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *Progress.get_default_columns()[1:2],
        TimeElapsedColumn(),
        console=screen,
        disable=not screen.is_terminal,
    ) as progress:
        bar = progress.add_task("round 1", total=run["rounds"])
        shown, told, waits = run["rounds_closed"], set[str](), _Waits()
        while True:
            for record in run["closed"]:
                if record["round"] > shown:
                    for line in (*round_lines(record), *_new(doubts(record), told)):
                        say(line)
            shown = run["rounds_closed"]
            now = run.get("open_round") or {"round": shown + 1}
            number = f"round {now['round']}"
            for line in waits.told(number, now):
                say(line)
            what = "publishing" if run["state"] == "publishing" else _waiting(number, now)
            what = shorten(what, MOST_ON_BAR, placeholder=" ...")
            progress.update(bar, completed=shown, description=what, refresh=True)
            if run["state"] not in ACTIVE:
                return run
            time.sleep(0.2)
            run = _look(client, run["id"])


def round_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Tell how a round has gone, and who is missing in it, equal reasons together."""
    from cloud_server.runs.run_store import brief
    from cloud_server.state.words import clusters_in_words, privacy_in_words

    verdicts = brief(dict(record))["verdicts"]
    yield (
        f"round {record['round']}: {verdicts.get('accepted', 0)}/{sum(verdicts.values())} robots, "
        f"{record['seconds']:.1f} s, held-out {held_out(record)}"
    )
    if missing := _missing(record, verdicts):
        yield f"without {missing}"
    if record.get("privacy"):
        yield privacy_in_words(record["privacy"])
    if record.get("clusters"):
        yield f"models of sites, in {clusters_in_words(record['clusters'])}"
    yield from record.get("site_notes", ())


def _missing(record: Mapping[str, Any], verdicts: Mapping[str, int]) -> str:
    """Return who is missing and why; of rounds with very many robots only how many."""
    from cloud_server.state.words import names

    if "robots" not in record:
        missing = (f"{n} {kind.replace('_', ' ')}" for kind, n in verdicts.items())
        return ", ".join(one for one in missing if not one.endswith(" accepted"))
    groups: dict[str, list[str]] = {}  # reason -> robots; those that need a person come first
    order = ("refused", "failed")
    robots = [robot for robot in record["robots"] if robot["verdict"] != "accepted"]
    for robot in sorted(robots, key=lambda robot: robot["verdict"] not in order):
        groups.setdefault(robot["outcome"], []).append(robot["name"])
    shown = [
        f"{names(group)} ({shorten(reason, MOST_WORDS, placeholder=' ...')})"
        for reason, group in list(groups.items())[:MOST_REASONS]
    ]
    if more := sum(map(len, list(groups.values())[MOST_REASONS:])):
        shown.append(f"and {more} more")
    return "; ".join(shown)


class _Waits:
    """Says why a round waits, or for whom: soon, and then ever more seldom."""

    def __init__(self) -> None:
        self._of: object = None
        self._next_s = 0.0

    def told(self, number: str, now: Mapping[str, Any]) -> Iterator[str]:
        """Yield a line if it is time for one."""
        why, whom = now.get("waits"), now.get("whom")
        if self._of != (begun := (number, bool(why))):
            self._of, self._next_s = begun, 0.0 if why else PATIENCE_S
        if (why or whom) and now["seconds"] >= self._next_s:
            self._next_s = max(PATIENCE_S, 2 * now["seconds"])
            yield _waiting(number, now)


def _waiting(number: str, now: Mapping[str, Any]) -> str:
    from cloud_server.state.clock import age

    seconds, why, whom = now.get("seconds", 0.0), now.get("waits"), now.get("whom")
    since = f" since {age(seconds)}" if seconds >= PATIENCE_S else ""
    if why:
        return f"{number} waits{since}: {why}"
    return f"{number} waits{since} for {whom}" if since and whom else number


def _new(lines: Sequence[str], told: set[str]) -> Iterator[str]:
    """Yield the lines that were not told yet: rounds of one run have much in common."""
    yield from (line for line in lines if line not in told)
    told.update(lines)


def _look(client: "AdminClient", run_id: str) -> dict[str, Any]:
    end = time.monotonic() + AWAY_S
    while True:
        try:
            return client.run(run_id)
        except ConnectionFailed:
            if time.monotonic() > end:
                raise
            time.sleep(1.0)
