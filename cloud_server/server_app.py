"""Our rounds as a Flower ServerApp, for a separate SuperLink (docs/separate-superlink.md).

The SuperLink carries messages and knows robots by their keys; everything that must last lies in a
server directory on the ServerApp's machine: register, settings, checkpoints, history, models. A
ServerApp that ended before its run did is started again with the same `flwr run`, and goes on.

Run config: `fleetlearn-directory` (DIR), `num-server-rounds`.
"""

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from cloud_server.flower.flower_link import FlowerRun
from cloud_server.flower.flower_superlink import is_half_sent
from cloud_server.flower.participants import Approved, participant_of, shut_out
from cloud_server.flower.replies import content_of, reply_of
from cloud_server.monitoring.tensorboard import TensorBoardWriter
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.offenses import Offenses
from cloud_server.robots.register import Register, Robot
from cloud_server.rounds.fleet import Participant, Reply
from cloud_server.runs.first_sums import method_of
from cloud_server.runs.lifecycle import Lifecycle, Tell
from cloud_server.runs.run_store import KEPT_RUNS, Run, RunStore
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.logs import log_to_stderr
from cloud_server.state.settings import ServerSettings, load_settings
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import public_line
from fleet_model.protocol.wire import RobotRequest, message_type, pack_request
from fleet_model.weights import size_bytes

DIRECTORY, ROUNDS = "fleetlearn-directory", "num-server-rounds"
LOOK_S = 1.0  # between looks at the SuperLink's nodes
SWEEP_S = 0.5  # between looks for replies when there were none: each is a request or more
TOGETHER_BYTES = 64_000_000  # updates that are asked for at once, and so in memory together
ONLINE = "online"
app = ServerApp()
log = logging.getLogger(__name__)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Resume the newest run of DIR if it has not finished, else begin one; publish at its end."""
    server_dir = ServerDirectory(_directory(context))
    server_dir.require()
    settings = load_settings(server_dir.settings)
    server_dir = server_dir.of(settings.publish.channel)
    log_to_stderr(settings.log, server_dir.root)
    if settings.moved:
        log.warning("%s: %s", server_dir.settings, settings.moved)
    rounds = context.run_config.get(ROUNDS)
    if not isinstance(rounds, int) or rounds < 1:
        raise SettingsError(f"run config {ROUNDS} is {rounds!r}, expected a number of rounds")
    with server_dir.locked("train"):
        store = RunStore(server_dir.runs_apart)
        method = method_of(settings, server_dir, None)
        run = take_up(store, Checkpoints(server_dir.checkpoints), rounds, time.time(), method)
        work(run, store, grid, server_dir, settings)


def take_up(
    store: RunStore, checkpoints: Checkpoints, rounds: int, now: float, closed_form: str = ""
) -> Run:
    """Return the newest run if it has not finished, with what it has closed, else a new one."""
    runs = store.load()
    last = runs[-1] if runs else None
    if last is None or last.state == "finished":
        first = checkpoints.latest().version
        run = Run(
            id=store.new_id(now),
            rounds=rounds,
            first_version=first,
            closed_form=closed_form,
            started_at=now,
        )
        store.save(run)
        store.forget([*runs, run][:-KEPT_RUNS])
        return run
    if not last.active:
        last.begin_again()
    log.info("run %s continues after round %d of %d", last.id, last.rounds_closed, last.rounds)
    return last


def work(
    run: Run, store: RunStore, grid: Grid, server_dir: ServerDirectory, settings: ServerSettings
) -> None:
    """Bring a run to its end; raises what ended it, so that Flower's run fails, too."""
    register = Register(server_dir.robots)
    offenses = Offenses(server_dir.offenses, register, settings.checks.suspend_after)
    told: list[Tell] = [offenses.record]
    if settings.log.tensorboard:
        writer = TensorBoardWriter(server_dir)
        told.append(lambda _: writer.catch_up())
    lifecycle = Lifecycle(
        server_dir,
        settings,
        GridFleet(grid, register, server_dir.seen),
        store,
        told=told,
        exclusive=nullcontext,  # the caller holds the directory
        details="`flwr log` shows details",
    )
    if (error := lifecycle.bring_to_end(run)) is not None:
        raise error


@dataclass(frozen=True, slots=True)
class _Question:
    robot: Participant
    key: str  # that the register had for it
    until: float  # monotonic seconds


class GridFleet:
    """Ask robots through a SuperLink: public Flower only, so any SuperLink of 1.41 or 1.42 will do.

    Its questions end with this process: a reply that nobody has taken by then is lost, and its
    robot is asked again.
    """

    def __init__(self, grid: Grid, register: Register, seen: Path) -> None:
        """Take part in the grid's run.

        Args:
            grid: of the ServerApp.
            register: says which of the SuperLink's nodes are robots that may take part.
            seen: file of the server that robots tell about themselves; may not be there.
        """
        self._grid = grid
        self._register, self._seen = register, seen
        self._approved = Approved(register, _by_key)
        self._lines: dict[bytes, str] = {}  # public key as Flower sends it -> as in the register
        self._keys: dict[int, str] = {}  # node id -> key, of robots that were online
        self._online: Sequence[Participant] = ()
        self._looked_at = self._swept_at = float("-inf")
        self._open: dict[str, _Question] = {}
        self._slice = 1  # replies that are asked for at once

    def open_run(self, resume: FlowerRun | None) -> None:
        """Do nothing: the Flower run is the one that this ServerApp was started for."""

    def close_run(self, *, completed: bool) -> None:
        """Do nothing: Flower closes the run when the ServerApp ends."""

    def online(self) -> Sequence[Participant]:
        """Return approved robots whose node is online; looked up at most every second."""
        if time.monotonic() - self._looked_at >= LOOK_S:
            self._online = list(self._look())
            self._looked_at = time.monotonic()
        return self._online

    def shut_out(self) -> Mapping[str, str]:
        """Return the robots that wait for the operator; see Fleet."""
        return shut_out(self._register)

    def send(
        self, participants: Sequence[Participant], request: RobotRequest, ttl_s: float
    ) -> Mapping[str, Participant]:
        """Ask robots; messages that outlive their time are dropped by Flower."""
        kind, group = message_type(request.kind), f"{request.run}/{request.round}"
        contents = {p: pack_request(request, p) for p in {r.common_protocol for r in participants}}
        messages = [
            Message(contents[robot.common_protocol], robot.node_id, kind, ttl=ttl_s, group_id=group)
            for robot in participants
        ]
        try:
            tickets = self._grid.push_messages(messages)  # in order; None: that one was not taken
        except Exception as error:
            if not is_half_sent(error):
                raise
            log.warning("round %d: the question did not go out whole; asking again", request.round)
            return {}  # who got it all the same answers twice: one reply is nobody's
        until = time.monotonic() + ttl_s
        sent = {t: robot for t, robot in zip(tickets, participants, strict=True) if t}
        self._open |= {t: _Question(r, self._keys[r.node_id], until) for t, r in sent.items()}
        model = size_bytes(request.checkpoint.weights)
        self._slice = max(1, TOGETHER_BYTES // max(1, model))
        return sent

    def replies(self, tickets: Collection[str]) -> Sequence[Reply]:
        """Return the first replies that there are, so few that memory does not grow with robots.

        What a robot sent that is no longer approved under its key is left unread.
        """
        if time.monotonic() - self._swept_at < SWEEP_S:
            return ()
        asked = iter([ticket for ticket in tickets if ticket in self._open])
        while some := list(islice(asked, self._slice)):
            if replies := [self._reply(message) for message in self._grid.pull_messages(some)]:
                return replies
        self._swept_at = time.monotonic()
        return ()

    def still_open(self, tickets: Collection[str]) -> set[str]:
        """Return those that this process has asked and whose time is not over."""
        now = time.monotonic()
        return {t for t in tickets if t in self._open and now < self._open[t].until}

    def _look(self) -> Iterator[Participant]:
        approved, seen = self._approved.newest(), LastSeen(self._seen)
        for node in self._grid.get_nodes():
            robot = approved.get(self._line(node.public_key))
            if robot is not None and node.status == ONLINE:
                self._keys[node.node_id] = robot.key
                yield participant_of(node.node_id, robot, seen)

    def _line(self, pem: bytes) -> str:
        """Return a node's key as the register holds it, "" if it is none of a robot."""
        if pem not in self._lines:
            self._lines[pem] = ""
            with suppress(ValueError, UnsupportedAlgorithm):
                key = serialization.load_pem_public_key(pem)
                if isinstance(key, ec.EllipticCurvePublicKey):
                    self._lines[pem] = public_line(key)
        return self._lines[pem]

    def _reply(self, message: Message) -> Reply:
        ticket = message.metadata.reply_to_message_id
        question = self._open.pop(ticket)
        robot = self._approved.newest().get(question.key)
        known = robot is not None and robot.name == question.robot.name
        return reply_of(ticket, content_of(message), question.robot.name if known else None)


def _by_key(approved: Sequence[Robot]) -> Mapping[str, Robot]:
    return {robot.key: robot for robot in approved}


def _directory(context: Context) -> Path:
    value = context.run_config.get(DIRECTORY)
    if not isinstance(value, str) or not value:
        raise SettingsError(
            f"run config lacks {DIRECTORY}, the server directory on the ServerApp's machine: "
            f"flwr run APP SUPERLINK --run-config '{DIRECTORY}=\"/srv/fleet\"'"
        )
    return Path(value)
