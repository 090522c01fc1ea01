"""Carry messages to virtual robots: the Fleet seam without network, under a clock that jumps.

Nothing is computed when a robot is asked. A training runs when its reply is collected, so that no
update exists before the round loop has room for it.
"""

import heapq
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from cloud_server.rounds.fleet import Clock, Fleet, Participant, Reply
from cloud_server.simulation.population import Population
from fleet_model.protocol.outcome import Outcome
from fleet_model.protocol.version import PROTOCOL
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Update

# The least that sleeping skips, per question under way: the round loop's work at every look is in
# proportion to those, and so is its share of what is measured.
SKIP_S = 0.0001
LONGEST_JUMP_S = 30.0  # robots that are switched on meanwhile are noticed so late at most
# Until the server gives up a robot that has gone away: it misses heartbeats, which come every 20 s,
# for 60 s, and then does not come back (cloud_server/flower/flower_link.py).
GONE_S = 60.0 - 20.0 / 2 + 120.0
SITE = "virtual"


class _End(Enum):
    """How a question ends."""

    ANSWERED = 0
    GONE = 1  # its robot goes away, and the server notices
    EXPIRED = 2  # its time to live passes before anything has come


@dataclass(frozen=True, eq=False, slots=True)
class _Question:
    robot: int
    request: RobotRequest
    end: _End


class VirtualFleet(Fleet):
    """All robots of a population, and what is under way to and from them."""

    def __init__(
        self,
        population: Population,
        work: Callable[[int, RobotRequest], Update],
        message_bytes: Callable[[RobotRequest], float],
    ) -> None:
        """Make a fleet in which nothing is under way.

        Args:
            population: the robots.
            work: one training: number of the robot, request -> update.
            message_bytes: how large a request, and so its reply, is on the network.
        """
        self._population, self._work, self._message_bytes = population, work, message_bytes
        self._now_s = 0.0
        digits = len(str(len(population)))
        self._participants = [
            Participant(
                node_id=number + 1,
                name=f"robot-{number + 1:0{digits}}",
                site=SITE,
                protocol=PROTOCOL,
            )
            for number in range(len(population))
        ]
        self._ends: list[tuple[float, int]] = []  # heap: when a question ends, its number
        self._open: dict[str, _Question] = {}
        self._arrived: dict[str, _Question] = {}  # and not collected yet
        self.asked = 0  # questions, over all rounds
        self.bytes_down = self.bytes_up = 0.0  # over all rounds, whether or not it was of use

    @property
    def clock(self) -> Clock:
        """Return the fleet's own time: sleeping ends when something has happened."""
        return Clock(now=lambda: self._now_s, sleep=self._sleep)

    def online(self) -> Sequence[Participant]:
        """Return the robots that are switched on."""
        return [self._participants[i] for i in self._population.online(self._now_s)]

    def send(
        self, participants: Sequence[Participant], request: RobotRequest, ttl_s: float
    ) -> Mapping[str, Participant]:
        """Start what each robot will do, and when it will have done it."""
        robots = np.array([robot.node_id - 1 for robot in participants], np.int64)
        questions = np.arange(self.asked, self.asked + len(robots), dtype=np.uint64)
        self.asked += len(robots)
        gone = self._population.gone(robots, questions)
        for robot, question, share in zip(robots, questions, gone, strict=True):
            self._start(int(question), int(robot), request, ttl_s, float(share))
        return {str(q): robot for q, robot in zip(questions, participants, strict=True)}

    def replies(self, tickets: Collection[str]) -> Sequence[Reply]:
        """Return what has arrived for these tickets; the trainings happen here."""
        while self._ends and self._ends[0][0] <= self._now_s:
            ticket = str(heapq.heappop(self._ends)[1])
            question = self._open.pop(ticket)
            if question.end is not _End.EXPIRED:
                self._arrived[ticket] = question
        wanted = [ticket for ticket in self._arrived if ticket in tickets]
        return [self._reply(ticket, self._arrived.pop(ticket)) for ticket in wanted]

    def still_open(self, tickets: Collection[str]) -> set[str]:
        """Return the tickets that can still be answered."""
        return {t for t in tickets if t in self._open or t in self._arrived}

    def _start(
        self, question: int, robot: int, request: RobotRequest, ttl_s: float, gone: float
    ) -> None:
        size = self._message_bytes(request)
        transfer_s = self._population.transfer_s(robot, size)
        work_s = self._population.work_s(robot, request.config.epochs)
        end, seconds = _End.ANSWERED, transfer_s + work_s + transfer_s
        if not math.isnan(gone):
            end, seconds = _End.GONE, gone * seconds + GONE_S
        self.bytes_down += size
        if end is _End.ANSWERED and transfer_s + work_s <= ttl_s:
            self.bytes_up += size  # a robot that is slower gives up and sends nothing
        if seconds > ttl_s:
            end, seconds = _End.EXPIRED, ttl_s
        self._open[str(question)] = _Question(robot, request, end)
        heapq.heappush(self._ends, (self._now_s + seconds, question))

    def _reply(self, ticket: str, question: _Question) -> Reply:
        if question.end is _End.GONE:
            return Reply(ticket=ticket, outcome=Outcome("offline"))
        update = self._work(question.robot, question.request)
        name = self._participants[question.robot].name
        return Reply(ticket=ticket, update=replace(update, robot=name))

    def _sleep(self, seconds: float) -> None:
        wake_s = self._now_s + max(seconds, SKIP_S * len(self._open))
        if self._ends:
            wake_s = max(wake_s, min(self._ends[0][0], self._now_s + LONGEST_JUMP_S))
        self._now_s = wake_s
