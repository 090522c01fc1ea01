"""The first round of a run as one exchange of sums, from which gradient rounds go on."""

from collections.abc import Callable
from dataclasses import replace

from cloud_server.aggregation.suited import require_sums_add_up
from cloud_server.privacy.in_rounds import require_no_sums
from cloud_server.robots.register import Register, relays_of
from cloud_server.rounds.fleet import Clock, Fleet
from cloud_server.rounds.progress import RoundProgress
from cloud_server.rounds.round_journal import RoundJournal
from cloud_server.rounds.round_loop import run_round
from cloud_server.rounds.sums_exchange import SUMS_ROBOTS, SumsExchange, space_of
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import ServerSettings
from cloud_server.state.sums.sums_store import SumsStore
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import SUMS, Checkpoint

OFF = "off"


def method_of(settings: ServerSettings, server_dir: ServerDirectory, asked: str | None) -> str:
    """Return the closed form that a run begins with, "" for none.

    What the operator asks for comes first. start.closed_form is for fleets that have learned
    nothing by gradients: their newest checkpoint is that of `init`, or in closed form itself.

    Raises:
        SettingsError: there is no such closed form, or this trainer has no head for it, or sums
            would have no noise, or a site relay could not add them up.
    """
    method = settings.start.closed_form if asked is None else asked
    newest = Checkpoints(server_dir.checkpoints).newest() or 0
    if method == OFF or (asked is None and newest and not _is_closed_form(server_dir, newest)):
        return ""
    require_no_sums(settings)
    require_sums_add_up(settings, relays_of(Register(server_dir.robots)))
    space_of(parse_trainer((server_dir.model_of(newest) / TRAINER).read_bytes()))
    return method


def _is_closed_form(server_dir: ServerDirectory, version: int) -> bool:
    """Return whether a checkpoint was made of sums, and by no gradient since."""
    record = Checkpoints(server_dir.checkpoints).record(version)
    if record is not None:
        return SUMS_ROBOTS in record.metrics
    head = SumsStore(server_dir.sums).head()
    return head is not None and head.version == version


def exchange_sums(
    fleet: Fleet,
    server_dir: ServerDirectory,
    settings: ServerSettings,
    request: RobotRequest,
    method: str,
    clock: Clock,
    journal: RoundJournal,
    *,
    stop: Callable[[], bool],
    watch: Callable[[RoundProgress], None],
) -> tuple[Checkpoint, RoundRecord]:
    """Ask for sums and return the checkpoint that all kept ones make; raises as `run_round`."""
    require_no_sums(settings)
    version = request.checkpoint.version
    spec = parse_trainer((server_dir.model_of(version) / TRAINER).read_bytes())
    head, space = space_of(spec)
    exchange = SumsExchange(SumsStore(server_dir.sums), head, space, method, settings.checks)
    config = replace(request.config, sums_directions=settings.start.directions)
    checkpoint, record = run_round(
        fleet,
        None,
        replace(request, kind=SUMS, config=config),
        settings.rounds.model_copy(update={"mode": "sync"}),
        settings.checks,
        clock,
        journal,
        stop=stop,
        watch=watch,
        kinds={SUMS: exchange.kind},
    )
    return checkpoint, exchange.told(record)
