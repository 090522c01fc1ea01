"""Runs: several rounds, then a published model. One at a time, in a thread of the server.

A run's progress is on disk before its next step, so a server that was killed resumes it (see
lifecycle.py). Runs that the schedule asks for begin here.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from cloud_server.models.release_log import Release, ReleaseLog
from cloud_server.profiles.reply import require_profiles
from cloud_server.rounds.progress import RoundProgress
from cloud_server.runs.first_sums import method_of
from cloud_server.runs.lifecycle import LeavingError, Lifecycle, RunFleet, Tell
from cloud_server.runs.run_store import KEPT_RUNS, MAX_CLOSED, Run, RunStore, recall
from cloud_server.runs.schedule import Schedule, ScheduleFile, follow
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import ServerSettings
from cloud_server.state.sums.sums_store import ClosedForm, SumsStore
from fleet_model.errors import RoundError
from fleet_model.types import EVALUATE, PROFILE

__all__ = ["Run", "RunFleet", "Runs"]

SHOWN_RUNS = 20
JOIN_S = 3.0  # a thread that is busy for longer is left behind, as by a crash
log = logging.getLogger(__name__)


class Runs:
    """Start, stop, resume runs; remember what happened."""

    def __init__(
        self,
        server_dir: ServerDirectory,
        settings: ServerSettings,
        fleet: RunFleet,
        told: Sequence[Tell] = (),
    ) -> None:
        """Read what earlier processes have left; `go_on` resumes it.

        Args:
            server_dir: what it keeps its state in.
            settings: for every run that works in this process.
            fleet: used by one run at a time.
            told: see Lifecycle.
        """
        self._fleet, self._settings = fleet, settings
        self._server_dir, self._channel = server_dir, settings.publish.channel
        self._store = RunStore(server_dir.runs)
        self._schedule = ScheduleFile(server_dir.schedule)
        self._runs = self._store.load()
        self._lock = threading.RLock()  # of the list of runs, and of who begins one
        self._recalling = threading.Lock()
        self._leaving = threading.Event()
        self._threads: list[threading.Thread] = []
        self._taken_up: dict[str, int] = {}
        self._lifecycle = Lifecycle(
            server_dir,
            settings,
            fleet,
            self._store,
            told=told,
            exclusive=lambda: server_dir.locked("train"),  # a ServerApp apart may train in here
            details="see the server's log",
            leaving=self._leaving,
        )
        self._recalled: set[str] = set()  # runs whose rounds are in memory, as far as they may be
        self._recall([run for run in self._runs if run.active])

    def go_on(self) -> None:
        """Take up a run that a process before this one has not ended, and follow the schedule."""
        unfinished = [run for run in self._runs if run.active]
        for run in unfinished[:-1]:  # two at once: only by hand
            with self._store.changing():
                run.state, run.error = "failed", "interrupted; a later run went on"
                self._store.save(run)
        for run in unfinished[-1:]:
            log.info("run %s continues after round %d", run.id, run.rounds_closed)
            self._taken_up[run.id] = run.rounds_closed
            self._begin(run)
        self._spawn(self._follow_schedule, "schedule")

    def leave(self) -> None:
        """Let threads end; an unfinished run goes on in the next process."""
        self._leaving.set()
        for thread in self._threads:
            thread.join(JOIN_S)

    def start(self, rounds: int, *, scheduled: bool = False, closed_form: str | None = None) -> Run:
        """Start a run in the background.

        Args:
            rounds: how many.
            scheduled: whether the schedule begins it.
            closed_form: what its first round makes of sums; None: what the settings say.

        Raises:
            RoundError: another run goes on.
            SettingsError: this trainer has no head that sums can make.
        """
        first = Checkpoints(self._own.checkpoints).newest() or 0
        method = method_of(self._settings, self._own, closed_form)
        return self._start(
            rounds=rounds, first_version=first, scheduled=scheduled, closed_form=method
        )

    def evaluate(self, version: int | None, robots: Sequence[str] = ()) -> Run:
        """Start an evaluation in the background.

        Args:
            version: of the checkpoint that robots measure; None takes the newest.
            robots: ask only these; all that the settings allow if empty.

        Raises:
            RoundError: a run goes on, or there is no such checkpoint.
        """
        return self._ask_once(EVALUATE, version, robots)

    def profile(self, version: int | None, robots: Sequence[str] = ()) -> Run:
        """Start asking for profiles of records in the background; as `evaluate`.

        Raises:
            RoundError: see there.
            SettingsError: profiles get no noise, and the settings ask for it; or this fleet's model
                makes none.
        """
        require_profiles(self._settings, self._own)
        return self._ask_once(PROFILE, version, robots)

    def _ask_once(self, kind: str, version: int | None, robots: Sequence[str]) -> Run:
        self._require_own_runs()
        known = Checkpoints(self._own.checkpoints).saved()
        version = known[-1] if version is None and known else version
        if version is None or version not in known:
            raise RoundError(
                f"there is no checkpoint {version}; those of versions {_ranges(known)} are kept"
            )
        return self._start(kind=kind, rounds=1, first_version=version, robots=tuple(robots))

    @property
    def _own(self) -> ServerDirectory:
        """What this server's runs are trained from."""
        return self._server_dir.of(self._channel)

    def _start(self, **fields: Any) -> Run:
        with self._lock:
            self._require_none_active()
            now = time.time()
            run_id = self._store.new_id(now)
            run = Run(id=run_id, channel=self._channel, started_at=now, **fields)
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
        with self._lock:  # else the follower sees the schedule due before its run has begun
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
        _require_active(run)
        try:  # first: else the schedule could begin the next run before it is cleared
            self._end_schedule_of(run)
        finally:  # a schedule that cannot be read is told, and must not make the run unstoppable
            with self._store.changing():
                _require_active(run)  # it may have ended meanwhile
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
            with self._store.changing():
                run.begin_again()
                self._store.save(run)
        self._begin(run)
        return run

    def get(self, run_id: str) -> Run | None:
        """Return one run."""
        run = next((run for run in self._runs if run.id == run_id), None)
        if run is not None:
            self._recall([run])
        return run

    def shown(self, run_id: str) -> dict[str, Any] | None:
        """Return one run as JSON with all that is held of its rounds; None if there is none."""
        run = self.get(run_id)
        if run is None:
            return None
        answer = run.as_json(MAX_CLOSED)
        now, answer["open_round"] = self.progress(), None
        if now is not None and now.run == run_id:
            online = {robot.name for robot in self._fleet.online()} if now.awaited else set()
            answer["open_round"] = now.at(time.monotonic(), online).as_json()
        if run.measured is not None and "robots" not in run.measured:
            saved = self._store.get(run_id)
            answer["measured"] = run.measured if saved is None else saved.measured
        return answer

    def all(self) -> list[Run]:
        """Return the newest runs, oldest first."""
        shown = self._runs[-SHOWN_RUNS:]
        self._recall(shown)
        return shown

    def known(self) -> list[Run]:
        """Return every run that is kept, oldest first; those of before may lack their rounds."""
        return list(self._runs)

    def taken_up(self) -> dict[str, int]:
        """Return the run that this process has taken up, if any -> rounds closed before it."""
        return self._taken_up.copy()

    def release(self) -> Release | None:
        """Return what became of a version last, by a run or by a command."""
        return ReleaseLog(self._own.releases).newest()

    def closed_form(self) -> ClosedForm | None:
        """Return what was made of sums last, None if nothing was."""
        return SumsStore(self._own.sums).head()

    def progress(self) -> RoundProgress | None:
        """Return how the open round goes, None between rounds; its deadline is monotonic time."""
        return self._lifecycle.progress

    def _follow_schedule(self) -> None:
        follow(
            self._schedule,
            runs=lambda: self._runs,
            start=lambda rounds: self.start(rounds, scheduled=True),
            pause=self._leaving.wait,
            lock=self._lock,
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
        try:
            self._lifecycle.bring_to_end(run)
        except LeavingError:
            log.info("run %s continues when the server is back", run.id)

    def _recall(self, runs: Sequence[Run]) -> None:
        """Give runs of earlier processes their closed rounds, read from the history's end."""
        with self._recalling:
            new = [run for run in runs if run.id not in self._recalled]
            for channel in {run.channel for run in new}:
                history = self._server_dir.of(channel or self._channel).history
                recall(history, [run for run in new if run.channel == channel])
            self._recalled |= {run.id for run in new}

    def _require(self, run_id: str) -> Run:
        run = self.get(run_id)
        if run is None:
            raise RoundError(f"there is no run {run_id}; see `cloud-server runs list DIR`")
        return run

    def _require_own_runs(self) -> None:
        if self._server_dir.is_relay:
            raise RoundError(
                "a site relay works on the runs of the fleet's server: begin them there, with "
                "`cloud-server train` or `cloud-server evaluate`"
            )

    def _require_none_active(self) -> None:
        self._require_own_runs()
        for run in self._runs:
            if run.active:
                raise RoundError(
                    f"run {run.id} is going on; wait until it has ended, or stop it with "
                    f"`cloud-server runs stop DIR {run.id}`"
                )


def _ranges(versions: Sequence[int]) -> str:
    """Return versions in few words: "0 to 4, 9"."""
    ranges: list[list[int]] = []
    for version in versions:
        if ranges and ranges[-1][-1] == version - 1:
            ranges[-1][1:] = [version]
        else:
            ranges.append([version])
    return ", ".join(" to ".join(map(str, ends)) for ends in ranges) or "none"


def _require_active(run: Run) -> None:
    if not run.active:
        raise RoundError(f"run {run.id} has ended already ({run.state})")
