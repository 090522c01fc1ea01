"""The round loop's fleet over Flower: robots are nodes, requests and updates are messages."""

import threading
from collections.abc import Mapping, Sequence

from cloud_server.robots import Register, Robot
from cloud_server.rounds import MAX_REASON, Participant, Reply
from fleet_model.errors import UpdateError
from fleet_model.flower_compat import Arrived, LinkGrid
from fleet_model.proof import parse_public
from fleet_model.wire import TrainRequest, pack_request, unpack_update


class FlowerFleet:
    """Keeps Flower's nodes equal to the register, and speaks in robots' names."""

    def __init__(self, grid: LinkGrid, register: Register) -> None:
        self._grid = grid
        self._register = register
        self._robots: dict[int, Robot] | None = None  # None: Flower's nodes are of another process
        self._sync = threading.Lock()  # requests and the run come from different threads
        self._tickets: dict[str, Participant] = {}

    def sync(self) -> Mapping[int, Robot]:
        """Admit robots that are new in the register, forget those that are gone; return all."""
        with self._sync:
            robots = self._register.robots()
            if self._robots is None or set(robots) != set(self._robots.values()):
                wanted = {self._grid.register(parse_public(r.key), r.name): r for r in robots}
                for node_id in self._grid.registered().keys() - wanted.keys():
                    self._grid.unregister(node_id)
                self._robots = wanted
            return self._robots

    def restarted(self, robot: Robot) -> None:
        """End what may be left of the robot's last session, so that it can come back at once."""
        for node_id, known in self.sync().items():
            if known.name == robot.name:
                self._grid.set_offline(node_id)

    def online(self) -> Sequence[Participant]:
        """Return admitted robots that are online."""
        robots = self.sync()
        return [
            Participant(node_id=node_id, name=robot.name, site=robot.site)
            for node_id in self._grid.online()
            if (robot := robots.get(node_id)) is not None
        ]

    def send(
        self, participants: Sequence[Participant], request: TrainRequest, ttl_s: float
    ) -> Mapping[str, Participant]:
        """Ask robots; messages that outlive the deadline are dropped by Flower."""
        by_node = {robot.node_id: robot for robot in participants}
        sent = self._grid.push(pack_request(request), list(by_node), ttl_s)
        self._tickets = {ticket: by_node[node_id] for ticket, node_id in sent.items()}
        return self._tickets

    def replies(self, tickets: Sequence[str]) -> Sequence[Reply]:
        """Return the replies that have arrived."""
        return [self._reply(arrived) for arrived in self._grid.pull(tickets)]

    def _reply(self, arrived: Arrived) -> Reply:
        ticket = arrived.message_id
        if arrived.content is None:
            return Reply(ticket=ticket, reason=arrived.reason[:MAX_REASON])
        try:
            update = unpack_update(arrived.content, self._tickets[ticket].name)
        except UpdateError as error:
            return Reply(ticket=ticket, reason=f"refused: {error}"[:MAX_REASON])
        return Reply(ticket=ticket, update=update)
