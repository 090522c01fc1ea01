"""A round of the fleet's server as a round of the building's robots, folded into one reply."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ValidationError

from cloud_server.flower.flower_link import FlowerRun
from cloud_server.models.older_agents import OlderAgents
from cloud_server.rounds.round_journal import DiskJournal
from cloud_server.rounds.round_loop import run_round
from cloud_server.runs.lifecycle import RunFleet, Tell
from cloud_server.runs.run_rounds import CLOCK, remember
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import ServerSettings
from edge_agent.training.training_job import (
    pack_update,
    read_packet,
    unpack_update,
    write_packet,
)
from fleet_model.bundle import FileEntry
from fleet_model.durable import write_durably, writing
from fleet_model.errors import RoundError, UpdateError
from fleet_model.protocol.version import FIRST_PROTOCOL, PROTOCOL
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import EVALUATE, FLOAT32, SUMS, TRAIN, Update
from fleet_model.workload import rebuild
from site_relay.mirror import Mirror
from site_relay.replies import building_of

# Of the time that the server gives, so that the reply of the building still arrives.
SHARE, LEAST_LEFT_S = 0.9, 2.0
log = logging.getLogger(__name__)


class _Open(BaseModel):
    """The Flower run in which robots of the building were asked last."""

    run: str  # of the server above
    flower: FlowerRun


class RelayedRounds:
    """Answers requests; all that a crash must leave of one is in DIR/runs/relay."""

    def __init__(
        self,
        server_dir: ServerDirectory,
        settings: ServerSettings,
        fleet: RunFleet,
        mirror: Mirror,
        told: Sequence[Tell],
        stop: Callable[[], bool],
    ) -> None:
        """Begin nothing yet.

        Args:
            server_dir: of the relay.
            settings: which robots take part, and the checks of their replies.
            fleet: the robots of the building.
            mirror: brings the files of a trainer.
            told: are told of every round that closed.
            stop: StoppedError is raised soon after it returns true.
        """
        self._server_dir, self._settings, self._fleet = server_dir, settings, fleet
        self._mirror, self._told, self._stop = mirror, told, stop
        self._folder = server_dir.relayed
        self._run = ""  # of the server above, whose Flower run is open

    def answer(self, request: RobotRequest) -> Update:
        """Return one reply for the building's robots; once made it is made for good.

        Raises:
            UpdateError: a kind of request, or tensors with it, that cannot be folded.
            RoundError: too few good replies.
            StoppedError: `stop` said so; called again, the round goes on.
            SettingsError, StorageError, BundleError, ConnectionFailed: as their names say.
        """
        _require_foldable(request)
        if (made := self._made(request)) is not None:
            return made
        spec = self._mirror.trainer(
            FileEntry(sha256=request.trainer, size_bytes=request.trainer_bytes)
        )
        first = OlderAgents(self._server_dir.model).trainer()
        asked = replace(
            request,
            reply_codec=FLOAT32,  # the building's own links are not the thin one
            labels=(spec.task or rebuild(spec.workload).task).learned,
            first_trainer=None if first is None else (first.sha256, first.size_bytes),
            trainer_protocol=PROTOCOL if first is None else FIRST_PROTOCOL,
            deadline_s=min(SHARE * request.deadline_s, request.deadline_s - LEAST_LEFT_S),
        )
        self._open_run(request.run)
        checks = self._settings.checks
        building = building_of(self._server_dir, spec, checks, asked)
        journal = DiskJournal(self._folder)
        rules = self._settings.rounds.model_copy(
            update={"mode": "sync", "deadline_s": asked.deadline_s, "target": 0}
        )
        _, record = run_round(
            self._fleet, None, asked, rules, checks, CLOCK, journal,
            stop=self._stop, kinds={request.kind: building.kind},
        )  # fmt: skip
        try:
            with building.closing(record) as update:
                self._tell(request, building.told(record))
                with writing(self._file(request)) as stream:
                    write_packet(stream, pack_update(update))
        except RoundError:
            journal.close(request.round)
            raise
        journal.close(request.round)
        for other in self._folder.glob("*.answer"):
            if other != self._file(request):
                other.unlink()
        return update

    def _tell(self, request: RobotRequest, record: RoundRecord) -> None:
        """Write down what came of a round, before its answer: killed in between, once more."""
        if request.kind == EVALUATE:  # it changes nothing
            return
        remember(self._server_dir, record)
        for tell in self._told:
            tell(record)

    def _open_run(self, run: str) -> None:
        """Let robots be asked in the run of the server; what they still do for others ends."""
        if self._run == run:
            return
        file = self._folder / "flower.json"
        before = _read(file)
        same = before is not None and before.run == run
        if self._run and not same:
            self._fleet.close_run(completed=True)
        flower = self._fleet.open_run(before.flower if before is not None and same else None)
        if flower is not None:
            write_durably(file, _Open(run=run, flower=flower).model_dump_json())
        self._run = run

    def _made(self, request: RobotRequest) -> Update | None:
        """Return the answer to a request that has been answered, if its reply was lost."""
        try:
            with self._file(request).open("rb") as stream:
                packet = read_packet(stream)
        except FileNotFoundError:
            return None
        return None if packet is None else unpack_update(packet)

    def _file(self, request: RobotRequest) -> Path:
        run = re.sub(r"[^A-Za-z0-9_-]", "_", request.run)
        version = request.checkpoint.version
        return self._folder / f"{request.kind}-{run}-{request.round:06d}-{version:06d}.answer"


def _require_foldable(request: RobotRequest) -> None:
    """Raise UpdateError for what no single reply can say of several robots."""
    if request.kind not in (TRAIN, EVALUATE, SUMS) or request.groups:
        what = f"the group {next(iter(request.groups))!r}" if request.groups else request.kind
        raise UpdateError(
            f"a site relay cannot answer for its robots where {what} is asked for: let them "
            "enroll at the fleet's server"
        )
    if request.kind == SUMS and (directions := request.config.sums_directions):
        raise UpdateError(
            f"a site relay adds up exact sums only, and {directions} leading directions of each "
            "robot's scatter are asked for: set start.directions = 0 on the fleet's server"
        )


def _read(file: Path) -> _Open | None:
    try:
        return _Open.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
