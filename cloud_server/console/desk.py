"""What pages and buttons work with: the server's own objects, asked once a second at most."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from cloud_server.monitoring.fleet_status import FleetStatus, Overview
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.runs.runs import Runs
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history_file import newest_lines
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import ServerSettings
from cloud_server.state.words import with_directory

FRESH_S = 1.0  # a page that was asked for by many does not ask the server's state for each
ROUNDS_LOOKED_AT = 60  # of the history, for one robot's last rounds


@dataclass(frozen=True, slots=True)
class _Looked:
    """The server at one moment."""

    status: FleetStatus
    at_s: float  # monotonic


@dataclass(eq=False)
class Desk:
    """One for the server; thread-safe."""

    server_dir: ServerDirectory  # with the lineage that the server trains
    settings: ServerSettings
    overview: Overview
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _looked: _Looked | None = None

    @property
    def runs(self) -> Runs:
        """Return what starts and stops runs."""
        return self.overview.runs

    def status(self) -> FleetStatus:
        """Return what is so now, or was a second ago; raises as `Overview.status`."""
        with self._lock:
            now_s = time.monotonic()
            if self._looked is None or now_s - self._looked.at_s >= FRESH_S:
                self._looked = _Looked(self.overview.status(), now_s)
            return self._looked.status

    def changed(self) -> None:
        """Look anew at the next page: something was done."""
        with self._lock:
            self._looked = None

    def words(self, text: str) -> str:
        """Return a sentence whose commands name the server's directory."""
        return with_directory(text, self.server_dir.root)

    def all_runs(self) -> list[tuple[Run, bool]]:
        """Return every run that is kept, the newest first, and whether it is of a ServerApp apart.

        Without their rounds: see `run`.
        """
        own = [(run, False) for run in self.runs.known()]
        apart = [(run, True) for run in RunStore(self.server_dir.runs_apart).load()]
        return sorted([*own, *apart], key=lambda one: (one[0].started_at, one[0].id), reverse=True)

    def run(self, run_id: str) -> dict[str, Any] | None:
        """Return one run as `Runs.shown`, None if there is none."""
        shown = self.runs.shown(run_id)
        if shown is not None:
            return {**shown, "apart": False}
        run = RunStore(self.server_dir.runs_apart).get(run_id)
        if run is None:
            return None
        return {**run.as_json(), "apart": True, "open_round": None}

    def round(self, run: dict[str, Any], number: int) -> dict[str, Any] | None:
        """Return a closed round with its robots: held by the run, else of the history's end."""
        for held in run["closed"]:
            if held["round"] == number and "robots" in held:
                return dict(held)
        home = self.server_dir.of(run["channel"] or self.settings.publish.channel)
        for line in newest_lines(home.history):
            key = line.key()
            if key is not None and key[:2] == (run["id"], number):
                record = line.record()
                return None if record is None else record.as_json()
        return None

    def newest_rounds(self) -> Iterator[RoundRecord]:
        """Yield closed rounds from the newest on, as many as one robot's page looks at."""
        for count, line in enumerate(newest_lines(self.server_dir.history)):
            if count >= ROUNDS_LOOKED_AT:
                return
            record = line.record()
            if record is not None:
                yield record

    def lineage(self, channel: str) -> ServerDirectory:
        """Return the directory with a lineage; "" is the one in DIR itself."""
        return replace(self.server_dir, lineage=channel)


@dataclass(frozen=True, slots=True)
class Part:
    """Some of many rows."""

    rows: Sequence[Any]
    number: int  # from 1
    of: int
    total: int


def part_of(rows: Sequence[Any], number: str, size: int = 50) -> Part:
    """Return one page of rows; a number that is none, or beyond the last, is the nearest one."""
    of, wanted = max(1, -(-len(rows) // size)), 1
    with suppress(ValueError):
        wanted = int(number[:9])
    wanted = min(max(wanted, 1), of)
    return Part(rows[(wanted - 1) * size : wanted * size], wanted, of, len(rows))
