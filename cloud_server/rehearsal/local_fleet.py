"""Clients of one machine as the round loop sees them: asked at once, trained one by one."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cloud_server.rehearsal.client_process import ClientData, ClientProcess
from cloud_server.rounds.fleet import Fleet, Participant, Reply
from fleet_model.errors import TrainingError
from fleet_model.protocol.outcome import Outcome
from fleet_model.protocol.version import PROTOCOL
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Checkpoint, Metrics, Update, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One client of a site."""

    name: str
    site: str
    data: ClientData


@dataclass(frozen=True, slots=True)
class Measured:
    """What a client measures of a model without training it."""

    client: Client
    metrics: Metrics = field(default_factory=dict)
    error: str = ""  # why it cannot


class LocalFleet(Fleet):
    """All clients, always there."""

    def __init__(
        self,
        clients: Sequence[Client],
        process: ClientProcess,
        told: Callable[[int, Client, Metrics], None],
    ) -> None:
        """Make a fleet in which nothing is under way.

        Args:
            clients: with different names.
            process: trains.
            told: is told round, client and measures of each training.
        """
        self._process, self._told = process, told
        self._clients = dict(enumerate(clients, 1))
        self._open: dict[str, tuple[int, RobotRequest]] = {}
        self._own: dict[str, Weights] = {}  # client -> tensors that it keeps
        self._asked = 0

    def online(self) -> Sequence[Participant]:
        """Return all clients."""
        return [
            Participant(node_id=number, name=one.name, site=one.site, protocol=PROTOCOL)
            for number, one in self._clients.items()
        ]

    def send(
        self, participants: Sequence[Participant], request: RobotRequest, ttl_s: float
    ) -> Mapping[str, Participant]:
        """Note what is asked; it is done when the reply is collected."""
        del ttl_s
        found = {}
        for one in participants:
            self._asked += 1
            self._open[str(self._asked)] = one.node_id, request
            found[str(self._asked)] = one
        return found

    def replies(self, tickets: Collection[str]) -> Sequence[Reply]:
        """Train for one of these tickets, and return its reply."""
        ticket = next((ticket for ticket in self._open if ticket in tickets), None)
        if ticket is None:
            return []
        number, request = self._open.pop(ticket)
        client = self._clients[number]
        try:
            update = self._trained(client, request)
        except TrainingError as error:
            return [Reply(ticket=ticket, outcome=Outcome("failed", str(error)))]
        self._told(request.round, client, update.metrics)
        return [Reply(ticket=ticket, update=replace(update, robot=client.name))]

    def still_open(self, tickets: Collection[str]) -> set[str]:
        """Return those that nobody has collected."""
        return {ticket for ticket in tickets if ticket in self._open}

    def measured(self, checkpoint: Checkpoint, starts: Mapping[str, Weights]) -> list[Measured]:
        """Return what each client measures of the model that it has now.

        Args:
            checkpoint: of the last round.
            starts: site -> the tensors that its clients have in place of the checkpoint's.
        """
        found = []
        for client in self._clients.values():
            own = self._own.get(client.name, {})
            weights = {**checkpoint.weights, **starts.get(client.site, {}), **own}
            try:
                metrics = self._process.measure(client.data, checkpoint.version, weights)
            except TrainingError as error:  # nothing is held out
                found.append(Measured(client, error=str(error)))
            else:
                found.append(Measured(client, metrics))
        return found

    def _trained(self, client: Client, request: RobotRequest) -> Update:
        """Return the update of a client, without the tensors that it keeps."""
        start = {**request.checkpoint.weights, **self._own.get(client.name, {})}
        seed = request.config.seed * len(self._clients) + client.data.part  # another order for each
        update = self._process.train(
            client.data, request.checkpoint.version, start, replace(request.config, seed=seed)
        )
        if not request.personal:
            return update
        kept = {name: start[name] + update.weights[name] for name in request.personal}
        self._own[client.name] = kept
        shared = {n: tensor for n, tensor in update.weights.items() if n not in kept}
        return replace(update, weights=shared)
