"""Rehearse a fleet: make a server directory, close rounds with real training, keep what they show.

DIR is a server directory as `cloud-server init` makes it, with rounds that have closed. Beside the
usual files it has in runs/rehearsal: sites/ (assignments, similarity, elbow, a picture of each
round), adapters/ROUND/SITE/ (what peft loads), evaluations.json (each client in each round),
learned.json (each client, with the model that it has after the last round).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloud_server.initialize import InitPlan, initialize
from cloud_server.models.export import Progress
from cloud_server.rehearsal.client_process import ClientData, ClientProcess
from cloud_server.rehearsal.local_fleet import Client, LocalFleet
from cloud_server.runs.run_rounds import RunSpan, close_rounds
from cloud_server.sites.site_models import site_models
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import ServerSettings, load_settings
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError
from fleet_model.types import Metrics, Weights
from fleet_model.workloads.causal_lm.peft_files import write_adapter

RUN = "rehearsal"
WHOLE = "fleet"  # where sites have no models of their own
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalPlan:
    """What is rehearsed."""

    init: InitPlan
    data: Mapping[str, Sequence[Path]]  # site -> its tables
    dealt: bool  # all sites have the same tables: each gets every so manieth row
    clients: int  # of each site
    rounds: int
    most: int = 0  # rows of each client; 0: all
    threads: int = 2
    device: str = "auto"


def clients_of(plan: RehearsalPlan) -> list[Client]:
    """Return the clients of all sites."""
    parts = plan.clients * (len(plan.data) if plan.dealt else 1)
    found = []
    for place, (site, paths) in enumerate(plan.data.items()):
        for number in range(plan.clients):
            part = place * plan.clients + number if plan.dealt else number
            data = ClientData(paths=paths, part=part, parts=parts, most=plan.most)
            found.append(Client(name=f"{site}-{number + 1}", site=site, data=data))
    return found


def rehearse(
    root: Path,
    plan: RehearsalPlan,
    chosen: Callable[[ServerSettings], ServerSettings],
    closed: Callable[[RoundRecord], None],
    progress: Progress,
) -> Sequence[Mapping[str, object]]:
    """Make `root` and close the plan's rounds.

    Returns what each client measures of the model that it has in the end, as in learned.json: its
    site's or the fleet's, with the tensors that it keeps.

    Args:
        root: a new directory.
        plan: what is rehearsed.
        chosen: gives the settings of the rounds, from those that `init` has written.
        closed: is told of each round.
        progress: is told how the directory is made.

    Raises:
        SettingsError, CheckpointError, ExportError: as initialize.
        RoundError: a round fails; those before it stay.
    """
    clients = clients_of(plan)
    if len(clients) < 2:
        raise SettingsError(f"{len(clients)} clients are no fleet: expected two at least")
    initialize(root, plan.init, progress)
    server_dir = ServerDirectory(root.absolute())
    settings = _for_all(chosen(load_settings(server_dir.settings)), len(clients))
    folder = server_dir.runs / RUN
    folder.mkdir(parents=True)
    log = list[Mapping[str, object]]()

    def told(number: int, client: Client, metrics: Metrics) -> None:
        log.append({"round": number, "site": client.site, "client": client.name, **metrics})

    def finished(record: RoundRecord) -> None:
        write_durably(folder / "evaluations.json", json.dumps(log, indent=1) + "\n")
        _write_adapters(server_dir, server_dir.rehearsed, record.round)
        closed(record)

    environment = {
        "OMP_NUM_THREADS": str(plan.threads),
        "EDGE_AGENT_TRAINING__DEVICE": plan.device,
    }
    with ClientProcess(server_dir.model, environment) as process:
        fleet = LocalFleet(clients, process, told)
        span = RunSpan(run=RUN, rounds=plan.rounds, first_version=0, journal=folder)
        last = close_rounds(fleet, server_dir, settings, span, closed=finished)
        # A round measures what the one before it has made: nobody has measured the last one's.
        found = fleet.measured(last, site_models(last).starts())
    learned = [
        {"site": one.client.site, "client": one.client.name, **one.metrics}
        | ({"error": one.error} if one.error else {})
        for one in found
    ]
    write_durably(folder / "learned.json", json.dumps(learned, indent=1) + "\n")
    return learned


def _for_all(settings: ServerSettings, clients: int) -> ServerSettings:
    """Return settings with which a round waits for every client, however long it trains."""
    everybody = {"quorum": min(settings.rounds.quorum, clients), "deadline_s": _DAY_S}
    rounds = settings.rounds.model_copy(update=everybody)
    return settings.model_copy(update={"rounds": rounds})


def _write_adapters(server_dir: ServerDirectory, folder: Path, number: int) -> None:
    """Write the adapter of each site, or of the fleet, as peft loads it."""
    spec = parse_trainer((server_dir.model / TRAINER).read_bytes())
    if spec.adapter is None:
        return
    checkpoint = Checkpoints(server_dir.checkpoints).latest()
    starts: Mapping[str, Weights] = site_models(checkpoint).starts() or {WHOLE: {}}
    for site, own in starts.items():
        into = folder / f"round-{number:06d}" / site
        into.mkdir(parents=True, exist_ok=True)
        write_adapter(spec.adapter, {**checkpoint.weights, **own}, into)
