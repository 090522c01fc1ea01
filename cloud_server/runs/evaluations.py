"""Ask robots to measure a checkpoint on their held-out examples: a round that changes no weights.

An evaluation is a run of its own kind: no other run goes on beside it, it survives a restart, and
it can be stopped and resumed. Its result is kept in run.json for as long as the run is.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from cloud_server.rounds.fleet import Clock, Fleet
from cloud_server.rounds.progress import RoundProgress
from cloud_server.rounds.reply_kinds import KINDS, ReplyKind
from cloud_server.rounds.round_journal import DiskJournal
from cloud_server.rounds.round_loop import run_round
from cloud_server.runs.run_rounds import CLOCK, RunSpan, request_of
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import RoundSettings, ServerSettings
from fleet_model.types import EVALUATE, Weights

WAIT_S = 5.0  # for a first robot: an operator is waiting, too


def measure(
    fleet: Fleet,
    server_dir: ServerDirectory,
    settings: ServerSettings,
    span: RunSpan,
    robots: tuple[str, ...] = (),
    starts: Mapping[str, Weights] | None = None,
    *,
    kind: str = EVALUATE,
    kinds: Mapping[str, ReplyKind] = KINDS,
    closed: Callable[[RoundRecord], None],
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[RoundProgress], None] = lambda _: None,
    clock: Clock = CLOCK,
) -> None:
    """Ask every robot that is online and may take part; whatever comes by the deadline counts.

    Args:
        fleet: carries messages; its Flower run is open.
        server_dir: checkpoints and trainer files of the channel are there.
        settings: who may take part, and how long a round may take.
        span: the run; its first_version is what is measured.
        robots: ask only these; all that the settings allow if empty.
        starts: site -> weights that its robots measure in place of the checkpoint's.
        kind: of the request, if it asks for something else than measures.
        kinds: how replies are treated.
        closed: is told of the result, which it makes durable.
        stop: asked several times a second; StoppedError is raised soon after it returns true.
        watch: is told how it goes.
        clock: of the deadlines.

    Raises:
        RoundError, StoppedError, StorageError: as run_round.
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    checkpoint = Checkpoints(server_dir.checkpoints).load(span.first_version)
    request = request_of(server_dir, settings, span.run, 1, checkpoint)
    # Of what stays on the robots a site has no state.
    whole = {site: {**checkpoint.weights, **own} for site, own in (starts or {}).items()}
    journal = DiskJournal(span.journal)
    _, record = run_round(
        fleet,
        None,
        replace(request, kind=kind, starts=whole),
        _rules(settings.rounds, robots),
        settings.checks,
        clock,
        journal,
        stop=stop,
        watch=watch,
        kinds=kinds,
    )
    closed(record)
    journal.close(record.round)


def _rules(settings: RoundSettings, robots: tuple[str, ...]) -> RoundSettings:
    """Return the rules of a training round, but every robot is asked and one is enough."""
    changes = {
        "mode": "sync",
        "quorum": 1,
        "target": 0,
        "robots": robots or settings.robots,
        "wait_s": min(settings.wait_s, WAIT_S),
    }
    return settings.model_copy(update=changes)
