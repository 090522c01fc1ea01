"""The round loop's fleet over Flower: robots are nodes, requests and updates are messages."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from cloud_server.flower.flower_link import FlowerRun, LinkGrid
from cloud_server.flower.participants import Approved, participant_of, shut_out
from cloud_server.flower.replies import reply_of
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register, Robot
from cloud_server.rounds.fleet import Participant, Reply
from cloud_server.state.words import names
from fleet_model.protocol.proof import parse_public
from fleet_model.protocol.wire import RobotRequest, message_type, not_told, pack_request

log = logging.getLogger(__name__)


class FlowerFleet:
    """Keeps Flower's nodes equal to the approved robots, and speaks in robots' names."""

    def __init__(self, grid: LinkGrid, register: Register, seen: LastSeen) -> None:
        self._grid = grid
        self._register, self._seen = register, seen
        self._robots: Mapping[int, Robot] = {}
        self._approved = Approved(register, self._admit)
        self._told_old: set[str] = set()
        self.asked: Callable[[], object] = lambda: None  # called when there are new questions

    def sync(self) -> Mapping[int, Robot]:
        """Admit robots that are newly approved, forget the others; return node id -> robot.

        While the register is damaged robots stay as they were; see Register.last_readable.
        """
        return self._approved.newest()

    def restarted(self, robot: Robot) -> None:
        """Let a robot's new process in at once, and ask it again what it has not answered."""
        for node_id, known in self.sync().items():
            if known.name == robot.name:
                self._grid.begin_session(node_id)

    def open_run(self, resume: FlowerRun | None) -> FlowerRun:
        """Let robots be asked; see LinkGrid."""
        return self._grid.open_run(resume)

    def close_run(self, *, completed: bool) -> None:
        """Withdraw what was asked; robots that still work on it are told at their next call."""
        self._grid.close_run(completed=completed)

    def online(self) -> Sequence[Participant]:
        """Return approved robots that are online, with what they last reported."""
        robots = self.sync()
        return [
            participant_of(node_id, robot, self._seen)
            for node_id in self._grid.online()
            if (robot := robots.get(node_id)) is not None
        ]

    def shut_out(self) -> Mapping[str, str]:
        """Return the robots that wait for the operator; see Fleet."""
        return shut_out(self._register)

    def send(
        self, participants: Sequence[Participant], request: RobotRequest, ttl_s: float
    ) -> Mapping[str, Participant]:
        """Ask robots; messages that outlive their time are dropped by Flower."""
        by_node = {robot.node_id: robot for robot in participants}
        kind, sent = message_type(request.kind), dict[str, int]()
        for protocol in {robot.common_protocol for robot in participants}:
            nodes = [node for node, robot in by_node.items() if robot.common_protocol == protocol]
            self._tell_of_old_agents([by_node[node].name for node in nodes], request, protocol)
            sent |= self._grid.push(pack_request(request, protocol), nodes, ttl_s, kind)
            self.asked()
        return {ticket: by_node[node_id] for ticket, node_id in sent.items()}

    def _tell_of_old_agents(
        self, robots: Sequence[str], request: RobotRequest, protocol: int
    ) -> None:
        """Say once of each robot what its agent is too old for."""
        new = set(robots) - self._told_old
        if new and (options := not_told(request, protocol)):
            log.warning(
                "%s: an agent of an earlier release, which trains without %s: update it",
                names(new),
                ", ".join(options),
            )
            self._told_old |= new

    def replies(self, tickets: Collection[str]) -> Sequence[Reply]:
        """Return the replies that have arrived, a few at a time; see Fleet."""
        arrived = self._grid.pull(tickets)
        if not arrived:
            return []
        robots = self.sync()
        names = {node_id: robot.name for node_id, robot in robots.items()}
        return [reply_of(one.message_id, one.content, names.get(one.node_id)) for one in arrived]

    def still_open(self, tickets: Collection[str]) -> set[str]:
        """Return those that can be answered, or are; see Fleet."""
        return self._grid.still_open(tickets)

    def _admit(self, approved: Sequence[Robot]) -> Mapping[int, Robot]:
        """Register who is new, unregister who is gone; the others are not touched."""
        known = {robot.key: node_id for node_id, robot in self._robots.items()}
        admitted = {}
        for robot in approved:
            node_id = known.get(robot.key)
            if node_id is None:
                node_id = self._grid.register(parse_public(robot.key), robot.name)
            admitted[node_id] = robot
        for node_id in self._grid.registered().keys() - admitted.keys():
            self._grid.unregister(node_id)
        self._robots = admitted
        return admitted
