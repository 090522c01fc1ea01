"""Runs: several rounds, then a published model. One at a time, in a thread of the server.

How far a run is stands on disk before it goes on, so a server that was killed takes it up where it
was, also in the middle of a round or of publishing. Runs that the schedule asks for begin here.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from cloud_server.flower.flower_link import FlowerRun
from cloud_server.models.publish import publish
from cloud_server.rounds.fleet import Fleet
from cloud_server.rounds.round_loop import QuorumError, RoundProgress
from cloud_server.runs.run_rounds import Span, close_rounds
from cloud_server.runs.run_store import KEPT_RUNS, Run, RunStore, recall
from cloud_server.runs.schedule import Schedule, ScheduleFile, follow
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import ServerSettings
from fleet_model.errors import ExportError, FleetError, RoundError, StoppedError, StorageError

__all__ = ["Run", "RunFleet", "Runs"]

SHOWN_RUNS = 20
LEAVING_S = 3.0  # Ctrl-C ends the export a moment before the server knows that it ends itself
log = logging.getLogger(__name__)
Tell = Callable[[RoundRecord], None]


class RunFleet(Fleet, Protocol):
    """A fleet whose questions belong to a Flower run, which outlives a server process."""

    def open_run(self, resume: FlowerRun | None) -> FlowerRun:
        """Take up `resume` if it has not ended, else begin a new one."""
        ...

    def close_run(self, *, completed: bool) -> None:
        """Withdraw what is unanswered."""
        ...


class _LeavingError(Exception):
    """The process ends: nothing is written any more, the next one goes on from what stands."""


class Runs:
    """Start, stop, resume runs; remember what happened."""

    def __init__(
        self,
        server_dir: ServerDirectory,
        settings: ServerSettings,
        fleet: RunFleet,
        told: Sequence[Tell] = (),
    ) -> None:
        """Read what earlier processes have left; `go_on` takes it up.

        Args:
            server_dir: what it keeps its state in.
            settings: for every run that works in this process.
            fleet: used by one run at a time.
            told: of every closed round when it is durable, after a crash of the last one again;
                and of a round that failed for its updates. They must not raise.
        """
        self._place = server_dir
        self._settings = settings
        self._fleet = fleet
        self._told = told
        self._store = RunStore(server_dir.runs)
        self._schedule = ScheduleFile(server_dir.schedule)
        self._runs = self._store.load()
        self._lock = threading.Lock()
        self._recalling = threading.Lock()
        self._leaving = threading.Event()
        self._threads: list[threading.Thread] = []
        self._progress: RoundProgress | None = None
        self._taken_up: dict[str, int] = {}
        self._began = 0.0  # monotonic; less what earlier processes have worked on the run
        self._recalled: set[str] = set()  # runs whose rounds are in memory, as far as they may be
        self._recall([run for run in self._runs if run.active])

    def go_on(self) -> None:
        """Take up a run that a process before this one has not ended, and follow the schedule."""
        unfinished = [run for run in self._runs if run.active]
        for run in unfinished[:-1]:  # two at once: only by hand
            run.state, run.error = "failed", "interrupted; a later run went on"
            self._store.save(run)
        for run in unfinished[-1:]:
            log.info("run %s goes on after round %d", run.id, run.rounds_closed)
            self._taken_up[run.id] = run.rounds_closed
            self._begin(run)
        self._spawn(self._follow_schedule, "schedule")

    def leave(self) -> None:
        """Let threads end; an unfinished run goes on in the next process."""
        self._leaving.set()
        for thread in self._threads:
            thread.join(LEAVING_S)

    def start(self, rounds: int, *, scheduled: bool = False) -> Run:
        """Start a run in the background; raises RoundError while another goes on."""
        with self._lock:
            self._require_none_active()
            now = time.time()
            run = Run(
                id=self._store.new_id(now),
                rounds=rounds,
                first_version=Checkpoints(self._place.checkpoints).newest() or 0,
                started_at=now,
                scheduled=scheduled,
            )
            self._store.save(run)
            self._recalled.add(run.id)
            self._runs.append(run)
            self._store.forget(self._runs[:-KEPT_RUNS])
            self._runs = [r for r in self._runs[:-KEPT_RUNS] if r.active] + self._runs[-KEPT_RUNS:]
        self._begin(run)
        return run

    def repeat(self, rounds: int, every_s: float | None) -> Run:
        """Start a run and set the schedule that begins the next ones; raises as `start`."""
        schedule = Schedule(rounds=rounds, every_s=every_s, set_at=time.time())
        with self._lock:
            self._require_none_active()
            self._schedule.save(schedule)
        log.info("schedule: %s", schedule.in_words())
        return self.start(rounds, scheduled=True)

    def stop(self, run_id: str) -> Run:
        """End a run soon; what has closed is published. A continuous schedule ends with it.

        Raises:
            RoundError: there is no such run or it has ended.
            SettingsError, StorageError: the run ends, but its schedule may begin another.
        """
        run = self._require(run_id)
        if not run.active:
            raise RoundError(f"run {run_id} has ended already ({run.state})")
        try:  # first: else the schedule could begin the next run before it is cleared
            self._end_schedule_of(run)
        finally:  # a schedule that cannot be read is told, and must not make the run unstoppable
            run.stopping = True
            self._store.save(run)
        return run

    def resume(self, run_id: str) -> Run:
        """Go on with a run that failed or was stopped; raises RoundError if it cannot."""
        with self._lock:
            run = self._require(run_id)
            if run.state == "finished":
                raise RoundError(f"run {run_id} has finished; start another")
            self._require_none_active()
            run.go_on_from(Checkpoints(self._place.checkpoints))
            run.stopping, run.ended_at = False, None
            run.state, run.ending = "waiting", "finished"
            self._store.save(run)
        self._begin(run)
        return run

    def get(self, run_id: str) -> Run | None:
        """Return one run."""
        run = next((run for run in self._runs if run.id == run_id), None)
        if run is not None:
            self._recall([run])
        return run

    def all(self) -> list[Run]:
        """Return the newest runs, oldest first."""
        shown = self._runs[-SHOWN_RUNS:]
        self._recall(shown)
        return shown

    def taken_up(self) -> dict[str, int]:
        """Return the run that this process has taken up, if any -> rounds closed before it."""
        return self._taken_up.copy()

    def progress(self) -> RoundProgress | None:
        """Return how the open round goes, None between rounds; its deadline is monotonic time."""
        return self._progress

    def _follow_schedule(self) -> None:
        follow(
            self._schedule,
            runs=lambda: self._runs,
            start=lambda rounds: self.start(rounds, scheduled=True),
            pause=self._leaving.wait,
        )

    def _end_schedule_of(self, run: Run) -> None:
        schedule = self._schedule.load()
        if schedule is not None and schedule.every_s is None and run.scheduled:
            self._schedule.clear()
            log.info("the schedule is cleared: its run %s is stopped", run.id)

    def _begin(self, run: Run) -> None:
        self._spawn(lambda: self._work(run), f"run-{run.id}")

    def _spawn(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()

    def _work(self, run: Run) -> None:
        """Bring a run from wherever it is to its end."""
        self._began = time.monotonic() - run.seconds
        try:
            if run.state != "publishing":
                self._close_rounds(run)
            self._publish(run)
        except _LeavingError:
            log.info("run %s goes on when the server is back", run.id)
            return
        run.seconds, run.ended_at = time.monotonic() - self._began, time.time()
        self._save(run.model_copy(update={"state": run.ending}))
        run.state = run.ending  # last: whoever sees it ended may read the rest, also on disk
        log.info("run %s: %s after %.1f s", run.id, run.state, run.seconds, extra={"run": run.id})

    def _close_rounds(self, run: Run) -> None:
        """Close what is left; however that ends, the run is about to publish afterwards."""
        run.state = "running"
        completed = self._trying(run, lambda: self._rounds(run))
        self._progress = None
        self._trying(run, lambda: self._fleet.close_run(completed=completed))
        run.flower, run.state = None, "publishing"
        self._save(run)

    def _rounds(self, run: Run) -> None:
        run.flower = self._fleet.open_run(run.flower)
        self._store.save(run)
        span = Span(
            run=run.id,
            rounds=run.rounds,
            first_version=run.first_version,
            journal=self._store.directory(run.id),
        )
        with self._place.locked("train"):  # a ServerApp apart may train in here, too
            close_rounds(
                self._fleet,
                self._place,
                self._settings,
                span,
                closed=lambda record: self._closed(run, record),
                stop=lambda: run.stopping or self._leaving.is_set(),
                watch=self._watch,
            )

    def _publish(self, run: Run) -> None:
        """Publish what has closed, also when a later round failed or was stopped."""
        if run.version is None or run.version == run.published_version:
            return

        def export() -> None:
            checkpoint = Checkpoints(self._place.checkpoints).latest()
            manifest = publish(self._place, self._settings.publish, checkpoint)
            run.published_version = manifest.version

        self._trying(run, export)

    def _trying(self, run: Run, work: Callable[[], None]) -> bool:
        """Do a part of a run; how it fails becomes the run's ending."""
        try:
            work()
        except Exception as error:  # noqa: BLE001  (a run must never end without a word)
            waits_s = LEAVING_S if isinstance(error, ExportError) else 0.0
            if self._leaving.wait(waits_s):
                raise _LeavingError from None
            self._fail(run, error)
            return False
        return True

    def _fail(self, run: Run, error: Exception) -> None:
        if isinstance(error, QuorumError):
            self._tell(error.record)
        if isinstance(error, StoppedError):
            run.ending = "stopped"
        elif run.ending != "stopped":
            run.ending = "failed"
        if isinstance(error, FleetError):
            run.error, run.exit_code = str(error), error.exit_code
        else:
            log.error("run %s", run.id, exc_info=error)
            run.error = f"unexpected {type(error).__name__}; see the server's log"
            run.exit_code = 1
        log.error("run %s %s: %s", run.id, run.ending, run.error, extra={"run": run.id})

    def _closed(self, run: Run, record: RoundRecord) -> None:
        self._progress = None
        self._tell(record)
        run.add(record.as_json())
        run.seconds = time.monotonic() - self._began
        self._store.save(run)

    def _save(self, run: Run) -> None:
        """Save the end of a part; without it the next process does that part again."""
        try:
            self._store.save(run)
        except StorageError as error:
            log.error("run %s: %s", run.id, error)

    def _watch(self, progress: RoundProgress) -> None:
        self._progress = progress

    def _tell(self, record: RoundRecord) -> None:
        for tell in self._told:
            tell(record)

    def _recall(self, runs: Sequence[Run]) -> None:
        """Give runs of earlier processes their closed rounds, read from the history's end."""
        with self._recalling:
            new = [run for run in runs if run.id not in self._recalled]
            recall(self._place.history, new)
            self._recalled |= {run.id for run in new}

    def _require(self, run_id: str) -> Run:
        run = self.get(run_id)
        if run is None:
            raise RoundError(f"there is no run {run_id}; see `cloud-server runs list`")
        return run

    def _require_none_active(self) -> None:
        for run in self._runs:
            if run.active:
                raise RoundError(
                    f"run {run.id} is going on; wait until it has ended, or stop it with "
                    f"`cloud-server runs stop DIR {run.id}`"
                )
