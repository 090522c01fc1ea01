"""The round loop's fleet over Flower: robots are nodes, requests and updates are messages."""

from collections.abc import Mapping, Sequence

from cloud_server.robots import Register, Robot
from cloud_server.rounds import Participant, Reply
from fleet_model.errors import UpdateError
from fleet_model.flower_compat import LinkGrid
from fleet_model.proof import parse_public
from fleet_model.wire import TrainRequest, pack_request, unpack_update

MAX_REASON = 300  # characters of a robot's own words that are kept


class FlowerFleet:
    """Keeps Flower's nodes equal to the register, and speaks in robots' names."""

    def __init__(self, grid: LinkGrid, register: Register) -> None:
        self._grid = grid
        self._register = register
        self._robots: dict[int, Robot] = {}
        self._tickets: dict[str, Participant] = {}

    def sync(self) -> None:
        """Admit robots that are new in the register, forget those that are gone."""
        robots = self._register.robots()
        if set(robots) == set(self._robots.values()):
            return
        wanted = {self._grid.register(parse_public(r.key), r.name): r for r in robots}
        for node_id in self._grid.registered().keys() - wanted.keys():
            self._grid.unregister(node_id)
        self._robots = wanted

    def restarted(self, robot: Robot) -> None:
        """End what may be left of the robot's last session, so that it can come back at once."""
        self.sync()
        for node_id, known in self._robots.items():
            if known.name == robot.name:
                self._grid.set_offline(node_id)

    def online(self) -> Sequence[Participant]:
        """Return admitted robots that are online."""
        self.sync()
        return [
            Participant(node_id=node_id, name=robot.name, site=robot.site)
            for node_id in self._grid.online()
            if (robot := self._robots.get(node_id)) is not None
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
        replies = []
        for message in self._grid.pull(tickets):
            ticket = str(message.metadata.reply_to_message_id)
            if message.has_error():
                reason = message.error.reason or "an error without a reason"
                replies.append(Reply(ticket=ticket, reason=reason[:MAX_REASON]))
                continue
            try:
                update = unpack_update(message.content, self._tickets[ticket].name)
            except UpdateError as error:
                replies.append(Reply(ticket=ticket, reason=f"refused: {error}"))
            else:
                replies.append(Reply(ticket=ticket, update=update))
        return replies
