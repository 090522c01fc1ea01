"""The rounds of a run one by one, each durable before the next begins.

Every kind of server closes rounds with this, whatever carries its messages. A round is durable in
this order: checkpoint with its record, line of the history, journal closed, whoever wants to know.
Killed at any point, `close_rounds` is called again and goes on: the version of the newest
checkpoint tells which round is next, and what was left undone of the last one is done first.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cloud_server.aggregation.asked import asking
from cloud_server.aggregation.personal import personal_tensors
from cloud_server.models.older_agents import OlderAgents
from cloud_server.privacy.in_rounds import (
    PrivateRun,
    private_checks,
    private_request,
)
from cloud_server.rounds.fleet import Clock, Fleet
from cloud_server.rounds.progress import RoundProgress
from cloud_server.rounds.round_journal import DiskJournal
from cloud_server.rounds.round_loop import run_round
from cloud_server.runs import conditions
from cloud_server.runs.first_sums import exchange_sums
from cloud_server.runs.suited import rule_of
from cloud_server.sites.in_rounds import (
    clusters_of,
    notes_of,
    with_starts,
)
from cloud_server.sites.report import write_report
from cloud_server.state.checkpoints import Checkpoints, since
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import RoundSettings, ServerSettings
from fleet_model.bundle import TRAINER, entry_of, parse_trainer, sha256_of
from fleet_model.errors import StorageError
from fleet_model.protocol.version import FIRST_PROTOCOL, PROTOCOL
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Checkpoint, TrainConfig
from fleet_model.workload import rebuild

CLOCK = Clock(now=time.monotonic, sleep=time.sleep)
SITES = "sites"  # folder of a run: how its sites were clustered, a round each
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpan:
    """Which rounds belong to a run; round n makes version first_version + n."""

    run: str
    rounds: int
    first_version: int  # of the checkpoint that its first round starts from
    journal: Path  # directory of the run's open round
    closed_form: str = ""  # the first round makes such a head of sums; "": it trains


def close_rounds(
    fleet: Fleet,
    server_dir: ServerDirectory,
    settings: ServerSettings,
    span: RunSpan,
    *,
    closed: Callable[[RoundRecord], None],
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[RoundProgress], None] = lambda _: None,
    clock: Clock = CLOCK,
) -> Checkpoint:
    """Close what is left of a run's rounds; return the newest checkpoint.

    Args:
        fleet: carries messages; its Flower run is open.
        server_dir: checkpoints, history and trainer files of the channel are there.
        settings: who takes part, and how they train.
        span: the run. Its first_version stays the same when it is taken up again.
        closed: is told of every round when it is durable; after a crash of the last one again.
        stop: asked several times a second; StoppedError is raised soon after it returns true.
        watch: is told how the open round goes.
        clock: of the deadlines.

    Raises:
        RoundError, StoppedError, StorageError: as run_round; what has closed stays.
        CheckpointError: the newest checkpoint is damaged.
        SettingsError: a wrong setting of rounds or aggregation.
    """
    checkpoints, journal = Checkpoints(server_dir.checkpoints), DiskJournal(span.journal)
    aggregator = rule_of(server_dir, settings)
    private = PrivateRun(server_dir.home, settings.privacy, span.run)

    def finish(record: RoundRecord, made: Checkpoint) -> None:
        remember(server_dir, record)
        journal.close(record.round)
        write_report(span.journal / SITES, record, made)
        closed(record)
        checkpoints.prune(settings.rounds.keep_checkpoints, _published(server_dir))

    checkpoint = checkpoints.latest()
    newest = checkpoints.record(checkpoint.version)
    if newest is not None and newest.run == span.run and newest.version == checkpoint.version:
        with _on_disk(server_dir):
            finish(newest, checkpoint)
    with _on_disk(server_dir):
        _note_conditions(server_dir, settings, span, checkpoint)
    while (number := checkpoint.version - span.first_version + 1) <= span.rounds:
        request = request_of(server_dir, settings, span.run, number, checkpoint)
        if number == 1 and span.closed_form:
            checkpoint, record = exchange_sums(
                fleet, server_dir, settings, request, span.closed_form, clock, journal,
                stop=stop, watch=watch,
            )  # fmt: skip
        else:
            request = asking(with_starts(request, settings.sites), aggregator)
            checkpoint, record = run_round(
                private.fleet(fleet),
                aggregator,
                private_request(request, settings.privacy),
                _with_its_labels(settings.rounds, checkpoints, checkpoint.version),
                private_checks(settings.checks, settings.privacy),
                clock,
                journal,
                stop=stop,
                watch=watch,
            )
        spent = private.settle(one.name for one in record.robots if one.accepted)
        record = replace(
            record,
            clusters=clusters_of(checkpoint),
            site_notes=notes_of(checkpoint),
            privacy=spent,
        )
        with _on_disk(server_dir):
            checkpoints.save(checkpoint, record)
            finish(record, checkpoint)
        log.info(
            "round %d closed in %.1f s: %s", number, record.seconds, dict(record.metrics),
            extra={"run": span.run, "round": number},
        )  # fmt: skip
    return checkpoint


def _note_conditions(
    server_dir: ServerDirectory, settings: ServerSettings, span: RunSpan, checkpoint: Checkpoint
) -> None:
    number = checkpoint.version - span.first_version + 1
    if number <= span.rounds:
        content = (server_dir.model_of(checkpoint.version) / TRAINER).read_bytes()
        conditions.note(span.journal, number, settings, sha256_of(content))


@contextmanager
def _on_disk(server_dir: ServerDirectory) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{server_dir.root}: a closed round cannot be written ({error.strerror}); give the "
            "disk room, then `cloud-server runs resume DIR`"
        ) from error


def request_of(
    server_dir: ServerDirectory,
    settings: ServerSettings,
    run: str,
    number: int,
    checkpoint: Checkpoint,
) -> RobotRequest:
    """Return what a run's round asks of robots, to train unless its kind is changed."""
    model = server_dir.model_of(checkpoint.version)
    content = (model / TRAINER).read_bytes()
    trainer, spec = entry_of(content), parse_trainer(content)
    first = OlderAgents(model).trainer()
    return RobotRequest(
        run=run,
        round=number,
        checkpoint=checkpoint,
        config=TrainConfig(**settings.training.model_dump(), seed=checkpoint.version),
        trainer=trainer.sha256,
        trainer_bytes=trainer.size_bytes,
        deadline_s=settings.rounds.deadline_s,
        first_trainer=None if first is None else (first.sha256, first.size_bytes),
        labels=(spec.task or rebuild(spec.workload).task).learned,
        reply_codec=str(settings.rounds.codec),
        trainer_protocol=PROTOCOL if first is None else FIRST_PROTOCOL,
        personal=personal_tensors(settings.aggregation.personal, spec.tensors),
    )


def _with_its_labels(rules: RoundSettings, checkpoints: Checkpoints, version: int) -> RoundSettings:
    """Let no update count, nor blame its robot, that was made before the labels changed."""
    age = version - since(checkpoints.model(version))
    return rules.model_copy(update={"max_staleness": min(rules.max_staleness, age)})


def _published(server_dir: ServerDirectory) -> set[int]:
    """Return versions by their files' names: a damaged manifest must not fail a closed round."""
    return set(DirectoryStore(server_dir.store).published(server_dir.lineage))


def remember(server_dir: ServerDirectory, record: RoundRecord) -> None:
    """Add the round to the history, once however often it is told."""
    key = (record.run, record.round, record.version)
    last = server_dir.last_of_history()
    if last is None or (last.get("run"), last.get("round"), last.get("version")) != key:
        server_dir.append_history(record.as_json())
