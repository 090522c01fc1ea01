"""What the gate judges by: what rounds have told, and a measurement of what is to be published."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloud_server.models.publish import released_version
from cloud_server.models.release_log import Release, ReleaseLog
from cloud_server.rounds.fleet import Fleet
from cloud_server.runs.evaluations import measure
from cloud_server.runs.gate import Evidence, Measured
from cloud_server.runs.run_rounds import RunSpan
from cloud_server.runs.run_store import Run
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history import ClosedRounds
from cloud_server.state.history_file import all_lines
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import ServerSettings
from fleet_model.errors import RoundError
from fleet_model.measures import AFTER, BEFORE
from fleet_model.types import Metrics, Weights

HURRY_S = 60.0  # for the measurement of a run that was stopped, or failed
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """How robots are asked to measure for one run."""

    fleet: Fleet  # its Flower run is open
    server_dir: ServerDirectory  # with the lineage of the run
    settings: ServerSettings
    run: Run
    journal: Path  # directory for the open questions
    stop: Callable[[], bool]

    def of(
        self,
        version: int,
        robots: tuple[str, ...],
        starts: Mapping[str, Weights] | None = None,
        about: str = "",
    ) -> Mapping[str, tuple[str, int, Metrics]]:
        """Return robot -> site, examples that count, measures, of those that answered.

        Args:
            version: of the checkpoint that is measured.
            robots: who is asked; all if empty.
            starts: site -> weights that its robots measure in place of the checkpoint's.
            about: tells the measurements of one version apart.

        Raises:
            RoundError: nobody did; the message says why.
            StoppedError: `stop` said so.
        """
        closed: list[RoundRecord] = []
        rounds = self.settings.rounds
        if self.run.ending != "finished":
            rounds = rounds.model_copy(update={"deadline_s": min(rounds.deadline_s, HURRY_S)})
        span = RunSpan(
            run=self.run.id,
            rounds=1,
            first_version=version,
            journal=self.journal / f"{version}{about}",
        )
        log.info("run %s: robots measure version %d%s", self.run.id, version, about)
        measure(
            self.fleet,
            self.server_dir,
            self.settings.model_copy(update={"rounds": rounds}),
            span,
            robots,
            starts,
            closed=closed.append,
            stop=self.stop,
        )
        return {r.name: (r.site, r.weight, r.metrics) for r in closed[0].robots if r.accepted}


def evidence_of(ask: Measurement, version: int) -> Evidence:
    """Let robots measure a version, and what they run now if no round of the run has.

    Raises:
        BundleError, CheckpointError: of files that are damaged.
        StoppedError: see Measurement.of.
    """
    server_dir, run = ask.server_dir, ask.run
    released = released_version(server_dir, run.channel)
    known = ReleaseLog(server_dir.releases).by_version()
    last = Checkpoints(server_dir.checkpoints).record(version)
    alone = {} if last is None else _metrics(last, AFTER)
    labels = [] if last is None else [r.counts.labels for r in last.robots if r.accepted]
    before = _first(server_dir, run, released, known)
    if ask.settings.sites.enabled and released is not None:
        before = {}  # rounds begin with the models of sites, which robots do not run
    robots: list[Measured] = []
    why = ""
    try:
        after = ask.of(version, tuple(before))
        if not before and released is not None:
            now = ask.of(released, tuple(after))
            before = {name: metrics for name, (_, _, metrics) in now.items()}
        robots = [
            Measured(
                robot=name, site=site, examples=max(examples, 1), before=before.get(name, {}),
                after=metrics, alone=alone.get(name, {}),
            )
            for name, (site, examples, metrics) in sorted(after.items())
        ]  # fmt: skip
    except RoundError as error:
        why = f"no robot has measured it: {error}"
    release = None if released is None else known.get(released)
    offer = DirectoryStore(server_dir.store).latest(run.channel)
    return Evidence(
        robots=robots,
        measures={} if offer is None else offer.manifest.described_task.measures,
        labels=labels,
        untrained=_untrained(server_dir, released, release),
        at_release={} if release is None else release.after,
        why_unmeasured=why,
    )


def _first(
    server_dir: ServerDirectory, run: Run, released: int | None, known: Mapping[int, Release]
) -> Mapping[str, Metrics]:
    """Return robot -> measures of what robots run, from the run's round that began with it.

    Where robots get nothing yet, what the run began with stands for it.
    """
    same = {released, *(v for v, r in known.items() if released is not None and r.of == released)}
    for record in ClosedRounds(server_dir, run.id):
        if released is None or record.version - 1 in same:
            return _metrics(record, BEFORE)
    return {}


def _metrics(record: RoundRecord, moment: str) -> Mapping[str, Metrics]:
    """Return robot -> measures of one moment, by the names that the workload has for them."""

    def of(metrics: Metrics) -> Metrics:
        return {n.removesuffix(moment): v for n, v in metrics.items() if n.endswith(moment)}

    return {r.name: of(r.metrics) for r in record.robots if r.accepted}


def _untrained(server_dir: ServerDirectory, released: int | None, release: Release | None) -> bool:
    """Return whether no round has made what robots run."""
    if released is None:
        return True
    root = released if release is None else release.root
    return next(_versions(server_dir), root + 1) > root


def _versions(server_dir: ServerDirectory) -> Iterator[int]:
    """Yield the versions that rounds have made, oldest first."""
    for line in all_lines(server_dir.history):
        if (key := line.key()) is not None:
            yield key[2]
