"""The virtual robots as Flower apps: their trainings spread over the actors of Flower's Ray engine.

`cloud-server simulate` does the same rounds in one process, under a clock that jumps. These run in
real time on all cores, or on a Ray cluster: the way to go where a training takes long.
docs/simulate.md shows how. Run config: `num-server-rounds`, `seed`.
"""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from cloud_server.flower.replies import content_of, reply_of
from cloud_server.rounds.fleet import Clock, Fleet, Participant, Reply
from cloud_server.simulation.learning import LABELS, HeadTask
from cloud_server.simulation.population import Population, Traits
from cloud_server.simulation.simulate import SimulationPlan, course, train
from cloud_server.simulation.virtual_fleet import SITE
from cloud_server.state.settings import ServerSettings
from fleet_model.protocol.wire import (
    RobotRequest,
    pack_request,
    pack_update,
    unpack_request,
)

ROUNDS, SEED = "num-server-rounds", "seed"
client = ClientApp()  # two lines: Flower looks for the names without importing
server = ServerApp()
log = logging.getLogger("flwr")  # the one that Flower shows


@client.train()
def train_one(message: Message, context: Context) -> Message:
    """Train as the robot whose number is the node's partition."""
    seed = int(context.run_config.get(SEED, 0))
    count = int(context.node_config["num-partitions"])
    robot = int(context.node_config["partition-id"])
    assert isinstance(message.content, RecordDict)
    update = train(*_world(count, seed), robot, unpack_request(message.content))
    return Message(pack_update(update), reply_to=message)


@server.main()
def run_rounds(grid: Grid, context: Context) -> None:
    """Close the rounds under the default settings, and tell what was learned."""
    seed, rounds = int(context.run_config.get(SEED, 0)), int(context.run_config.get(ROUNDS, 3))
    fleet = ActorFleet(grid)
    plan = SimulationPlan(
        traits=Traits(robots=len(fleet.online()), seed=seed),
        settings=ServerSettings(),
        rounds=rounds,
    )
    clock = Clock(now=time.monotonic, sleep=time.sleep)
    for line in course(fleet, clock, HeadTask(seed), plan):
        log.info(
            "round %d: %d of %d updates, accuracy %.3f %s",
            line.round, line.accepted, line.asked, line.accuracy, line.error,
        )  # fmt: skip


class ActorFleet(Fleet):
    """Ask Flower's virtual nodes; unlike robots they have no keys and never go away."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._robots: dict[str, Participant] = {}  # open ticket -> who was asked

    def online(self) -> Sequence[Participant]:
        """Return all nodes."""
        return [
            Participant(node_id=i, name=f"node-{i}", site=SITE) for i in self._grid.get_node_ids()
        ]

    def send(
        self, participants: Sequence[Participant], request: RobotRequest, ttl_s: float
    ) -> Mapping[str, Participant]:
        """Ask nodes; Flower drops what outlives its time."""
        content = pack_request(request)
        messages = [
            Message(content, robot.node_id, MessageType.TRAIN, ttl=ttl_s) for robot in participants
        ]
        sent = dict(zip(self._grid.push_messages(messages), participants, strict=True))
        self._robots |= sent
        return sent

    def replies(self, tickets: Collection[str]) -> Sequence[Reply]:
        """Return what has arrived."""
        return [self._reply(message) for message in self._grid.pull_messages(list(tickets))]

    def still_open(self, tickets: Collection[str]) -> set[str]:
        """Return those without a reply so far."""
        return {ticket for ticket in tickets if ticket in self._robots}

    def _reply(self, message: Message) -> Reply:
        ticket = message.metadata.reply_to_message_id
        robot = self._robots.pop(ticket)
        return reply_of(ticket, content_of(message), robot.name)


@lru_cache(maxsize=1)
def _world(robots: int, seed: int) -> tuple[HeadTask, Population]:
    return HeadTask(seed), Population(Traits(robots=robots, seed=seed), LABELS)
