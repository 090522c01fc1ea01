"""Runs: several rounds, then a published model. One at a time, in a thread of the server."""

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from cloud_server.aggregation.aggregator import AGGREGATORS
from cloud_server.checkpoints import Checkpoints
from cloud_server.directory import ServerDirectory
from cloud_server.flower_fleet import FlowerFleet
from cloud_server.publish import publish
from cloud_server.rounds import Clock, RoundRecord, RoundRules, run_round
from cloud_server.settings import ServerSettings
from fleet_model.bundle import TRAINER, entry_of
from fleet_model.errors import FleetError, RoundError
from fleet_model.flower_compat import LinkGrid
from fleet_model.loading import load_plugin
from fleet_model.types import TrainConfig
from fleet_model.wire import TrainRequest

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
    """One run, as the operator sees it; changed by its thread only."""

    id: str
    rounds: int
    state: str = "running"  # then "publishing", then "finished" or "failed"
    closed: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    exit_code: int = 0
    published_version: int | None = None
    seconds: float = 0.0

    @property
    def active(self) -> bool:
        """Return whether the run goes on."""
        return self.state in ("running", "publishing")

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


class Runs:
    """Start runs and keep what happened."""

    def __init__(
        self, place: ServerDirectory, settings: ServerSettings, fleet: FlowerFleet, grid: LinkGrid
    ) -> None:
        self._place = place
        self._settings = settings
        self._fleet = fleet
        self._grid = grid
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()

    def start(self, rounds: int) -> Run:
        """Start a run in the background; raises RoundError while another goes on."""
        with self._lock:
            for run in self._runs.values():
                if run.active:
                    raise RoundError(f"run {run.id} is going on; wait until it has ended")
            run = Run(id=time.strftime("%Y%m%d-%H%M%S", time.gmtime()), rounds=rounds)
            while run.id in self._runs:
                run.id += "b"
            self._runs[run.id] = run
        threading.Thread(target=self._run, args=(run,), name=f"run-{run.id}", daemon=True).start()
        return run

    def get(self, run_id: str) -> Run | None:
        """Return one run of this server process."""
        return self._runs.get(run_id)

    def all(self) -> list[Run]:
        """Return the runs of this server process, oldest first."""
        return list(self._runs.values())

    def _run(self, run: Run) -> None:
        begin, state = time.monotonic(), "failed"
        try:
            try:
                self._rounds(run)
            finally:  # what has closed is published, also when a later round failed
                self._publish(run)
            state = "finished"
        except FleetError as error:
            self._fail(run, str(error), error.exit_code)
        except Exception as error:  # the thread's edge: a run must never end without a word
            log.exception("run %s", run.id)
            self._fail(run, f"unexpected {type(error).__name__}; see the server's log", 1)
        finally:
            run.seconds = time.monotonic() - begin
            run.state = state  # last: whoever sees it ended may read the rest
            log.info("run %s: %s after %.1f s", run.id, run.state, run.seconds)

    def _publish(self, run: Run) -> None:
        if run.closed:
            run.state = "publishing"
            checkpoint = Checkpoints(self._place.checkpoints).latest()
            manifest = publish(self._place, self._settings.publish, checkpoint)
            run.published_version = manifest.version

    def _fail(self, run: Run, reason: str, exit_code: int) -> None:
        run.error, run.exit_code = reason, exit_code
        log.error("run %s failed: %s", run.id, reason)

    def _rounds(self, run: Run) -> None:
        """Close the run's rounds one by one, each with its checkpoint on disk."""
        checkpoints = Checkpoints(self._place.checkpoints)
        checkpoint = checkpoints.latest()
        aggregator = load_plugin(AGGREGATORS, self._settings.rounds.aggregator)()
        rounds = self._settings.rounds
        rules = RoundRules(quorum=rounds.quorum, deadline_s=rounds.deadline_s, wait_s=rounds.wait_s)
        trainer = entry_of((self._place.model / TRAINER).read_bytes())
        clock = Clock(now=time.monotonic, sleep=time.sleep)
        self._grid.open_run()
        completed = False
        try:
            for number in range(1, run.rounds + 1):
                request = TrainRequest(
                    run=run.id,
                    round=number,
                    checkpoint=checkpoint,
                    config=TrainConfig(
                        **self._settings.training.model_dump(), seed=checkpoint.version
                    ),
                    trainer=trainer.sha256,
                    trainer_bytes=trainer.size_bytes,
                    deadline_s=rules.deadline_s,
                )
                checkpoint, record = run_round(self._fleet, aggregator, request, rules, clock)
                checkpoints.save(checkpoint)
                self._remember(run, record)
            completed = True
        finally:
            self._grid.close_run(completed=completed)

    def _remember(self, run: Run, record: RoundRecord) -> None:
        line = record.as_json()
        self._place.append_history(line)
        run.closed.append(line)
        log.info(
            "round %d closed in %.1f s: %s", record.round, record.seconds, dict(record.metrics)
        )
