"""One run from wherever it is to its end: close rounds, publish, say how it ended.

Used by the server (runs.py) and by a ServerApp apart (server_app.py). Each step is on disk before
the next begins, so another process can continue after a crash at any point, also while publishing.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, Protocol

from cloud_server.flower.flower_link import FlowerRun
from cloud_server.models.publish import imported_file, leave_withheld, publish
from cloud_server.models.release_log import IMPORTED, ReleaseLog
from cloud_server.profiles.reply import profile_kind
from cloud_server.profiles.store import ProfileStore
from cloud_server.rounds.fleet import Fleet
from cloud_server.rounds.progress import RoundProgress
from cloud_server.rounds.reply_kinds import KINDS
from cloud_server.rounds.round_loop import QuorumError
from cloud_server.runs.evaluations import measure
from cloud_server.runs.evidence import Measurement, evidence_of
from cloud_server.runs.gate import Verdict, judge
from cloud_server.runs.run_rounds import RunSpan, close_rounds
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.runs.site_gate import judged_sites
from cloud_server.signing.rollouts import open_rollout
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import ServerSettings
from fleet_model.durable import telling_of_the_disk
from fleet_model.errors import FleetError, StoppedError, StorageError
from fleet_model.types import PROFILE, TRAIN

log = logging.getLogger(__name__)
Tell = Callable[[RoundRecord], None]


class RunFleet(Fleet, Protocol):
    """A fleet whose questions belong to a Flower run."""

    def open_run(self, resume: FlowerRun | None) -> FlowerRun | None:
        """Resume `resume` if it has not ended, else begin a new one.

        Returns None if the Flower run is not this process's to begin and end.
        """
        ...

    def close_run(self, *, completed: bool) -> None:
        """Withdraw what is unanswered."""
        ...


class LeavingError(Exception):
    """The process ends: nothing more is written, the next process continues from the disk."""


def _fields(verdict: Verdict) -> dict[str, Any]:
    told = {
        name: [asdict(one) for one in getattr(verdict, name)] for name in ("reasons", "warnings")
    }
    return {
        **told, "examples": verdict.examples, "before": verdict.before, "after": verdict.after,
    }  # fmt: skip


class Lifecycle:
    """Works on one run at a time, in the thread of the caller."""

    def __init__(
        self,
        server_dir: ServerDirectory,
        settings: ServerSettings,
        fleet: RunFleet,
        store: RunStore,
        *,
        told: Sequence[Tell],
        exclusive: Callable[[], AbstractContextManager[None]],
        details: str,
        leaving: threading.Event | None = None,
    ) -> None:
        """Do nothing yet.

        Args:
            server_dir: checkpoints, history and models are there.
            settings: who takes part, how they train, where models go.
            fleet: carries messages.
            store: where the run is saved.
            told: each is called with every closed round when it is durable, after a crash with the
                last one again, and with a round that failed for its updates. They must not raise.
            exclusive: keeps others from training in the directory while rounds close.
            details: where a person finds more about an unexpected error.
            leaving: set when the process ends.
        """
        self._server_dir, self._settings = server_dir, settings
        self._fleet, self._store, self._told = fleet, store, told
        self._exclusive, self._details = exclusive, details
        self._leaving = leaving or threading.Event()
        self._began = 0.0  # monotonic; less what earlier processes have worked on the run
        self.progress: RoundProgress | None = None  # of the open round; None between rounds

    def bring_to_end(self, run: Run) -> Exception | None:
        """Work until the run has ended; return the error that ended it, if any.

        Raises:
            LeavingError: the process ends first.
        """
        self._began = time.monotonic() - run.seconds
        with self._store.changing():
            run.channel = run.channel or self._settings.publish.channel
        failed = None if run.state == "publishing" else self._close_rounds(run)
        failed = self._trying(run, lambda: self._publish(run)) or failed
        with self._store.changing():
            run.seconds, run.ended_at = time.monotonic() - self._began, time.time()
            self._save(run.model_copy(update={"state": run.ending}))
            run.lighten()  # it is not saved any more
            run.state = run.ending  # last: who sees it ended may read the rest, also on disk
        log.info("run %s: %s after %.1f s", run.id, run.state, run.seconds, extra={"run": run.id})
        return failed

    def _close_rounds(self, run: Run) -> Exception | None:
        """Close what is left; however that ends, publishing comes next."""
        with self._store.changing():
            run.state = "running"
        failed = self._trying(run, lambda: self._rounds(run))
        self.progress = None
        completed = failed is None
        failed = self._trying(run, lambda: self._fleet.close_run(completed=completed)) or failed
        with self._store.changing():
            run.flower, run.state = None, "publishing"
            self._save(run)
        return failed

    def _rounds(self, run: Run) -> None:
        with self._exclusive():
            flower = self._fleet.open_run(run.flower)
            server_dir = self._server_dir.of(run.channel)
            if run.kind == TRAIN:
                leave_withheld(server_dir, run.channel, f"run {run.id}")
            with self._store.changing():
                run.catch_up(Checkpoints(server_dir.checkpoints))
                run.flower = flower
                self._store.save(run)
            span = RunSpan(
                run=run.id,
                rounds=run.rounds,
                first_version=run.first_version,
                journal=self._store.directory(run.id),
                closed_form=run.closed_form,
            )
            if run.kind == TRAIN:
                close_rounds(
                    self._fleet,
                    server_dir,
                    self._settings,
                    span,
                    closed=lambda record: self._closed(run, record),
                    stop=lambda: run.stopping or self._leaving.is_set(),
                    watch=self._watch,
                )
            elif run.measured is None:  # else its process ended just before it could say so
                measure(
                    self._fleet,
                    server_dir,
                    self._settings,
                    span,
                    run.robots,
                    kind=run.kind,
                    kinds={**KINDS, PROFILE: profile_kind(ProfileStore(server_dir.profiles))},
                    closed=lambda record: self._measured(run, record),
                    stop=lambda: run.stopping or self._leaving.is_set(),
                    watch=self._watch,
                )

    def _publish(self, run: Run) -> None:
        """Publish what has closed, also when a later round failed or was stopped; if it passes."""
        told = None if run.release is None else run.release.version
        if run.version is None or run.version in (run.published_version, told):
            return
        server_dir = self._server_dir.of(run.channel)
        checkpoint = Checkpoints(server_dir.checkpoints).latest()
        releases, by = ReleaseLog(server_dir.releases), f"run {run.id}"
        about = self._judged(run, server_dir, checkpoint.version)
        if why := open_rollout(server_dir.store, run.channel):
            reasons = [*about.get("reasons", ()), {"kind": "rollout", "words": why}]
            about = {**about, "reasons": reasons}
        version, file = imported_file(server_dir, run.channel)
        if file:
            words = f"they run version {version}, which is {file} and was imported"
            reasons = [*about.get("reasons", ()), {"kind": IMPORTED, "words": words}]
            about = {**about, "reasons": reasons}
        if about.get("reasons"):
            release = releases.add(checkpoint.version, "withheld", by, **about)
            for line in release.sentences():
                log.warning("run %s: %s", run.id, line, extra={"run": run.id})
            with self._store.changing():
                run.release = release
            return
        settings = self._settings.publish.model_copy(update={"channel": run.channel})
        made = []
        manifest = publish(
            server_dir,
            settings,
            checkpoint,
            stop=self._leaving.is_set,
            tell=lambda: made.append(releases.add(checkpoint.version, "published", by, **about)),
        )
        with self._store.changing():
            run.published_version, run.release = manifest.version, made[-1] if made else None

    def _judged(self, run: Run, server_dir: ServerDirectory, version: int) -> dict[str, Any]:
        """Return what the gate says of a version, as fields of its release."""
        if self._settings.gate.publish == "always":
            return {}
        with self._store.changing():
            run.flower = self._fleet.open_run(run.flower)
            self._store.save(run)
        ask = Measurement(
            fleet=self._fleet,
            server_dir=server_dir,
            settings=self._settings,
            run=run,
            journal=self._store.directory(run.id) / "gate",
            stop=self._leaving.is_set,
        )
        try:
            evidence = evidence_of(ask, version)
            verdict = judge(evidence, self._settings.gate)
            sites = judged_sites(ask, version, evidence)
        finally:
            if not self._leaving.is_set():
                self._fleet.close_run(completed=True)
        with self._store.changing():
            run.flower = None
        told = {site: _fields(one) for site, one in sites.items()}
        return _fields(verdict) | ({"sites": told} if told else {})

    def _trying(self, run: Run, step: Callable[[], None]) -> Exception | None:
        """Do a step of a run; return how it failed, which becomes the run's ending."""
        resume = f"mend that, then `cloud-server runs resume DIR {run.id}`"
        try:
            with telling_of_the_disk("the server's directory cannot be written", resume):
                step()
        except Exception as error:  # noqa: BLE001  (a run must never end without a word)
            if self._leaving.is_set():
                raise LeavingError from None
            if isinstance(error, QuorumError) and run.kind == TRAIN:
                self._tell(error.record)
            with self._store.changing():
                self._fail(run, error)
            return error
        return None

    def _fail(self, run: Run, error: Exception) -> None:
        if isinstance(error, StoppedError):
            run.ending = "stopped"
        elif run.ending != "stopped":
            run.ending = "failed"
        if isinstance(error, FleetError):
            run.error, run.exit_code = str(error), error.exit_code
        else:
            log.error("run %s", run.id, exc_info=error)
            run.error = f"unexpected {type(error).__name__}; {self._details}"
            run.exit_code = FleetError.exit_code
        log.error("run %s %s: %s", run.id, run.ending, run.error, extra={"run": run.id})

    def _closed(self, run: Run, record: RoundRecord) -> None:
        self.progress = None
        self._tell(record)
        with self._store.changing():
            run.add(record.as_json())
            run.seconds = time.monotonic() - self._began
            self._store.save(run)

    def _measured(self, run: Run, record: RoundRecord) -> None:
        """Keep what robots measured; it is no round of the history, and no verdict on a robot."""
        self.progress = None
        with self._store.changing():
            run.measured, run.rounds_closed = record.as_json(), 1
            run.seconds = time.monotonic() - self._began
            self._store.save(run)

    def _save(self, run: Run) -> None:
        """Save the end of a step; without it the next process does that step again."""
        try:
            self._store.save(run)
        except StorageError as error:
            log.error("run %s: %s", run.id, error)

    def _watch(self, progress: RoundProgress) -> None:
        self.progress = progress

    def _tell(self, record: RoundRecord) -> None:
        for tell in self._told:
            tell(record)
