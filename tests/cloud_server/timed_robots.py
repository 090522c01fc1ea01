"""Robots with a clock of their own, so that the round loop runs hours in microseconds."""

import math
from dataclasses import replace

import numpy as np

from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.rounds.fleet import Fleet
from cloud_server.rounds.round_journal import MemoryJournal
from cloud_server.rounds.round_loop import Clock, Participant, Reply, run_round
from cloud_server.state.learning_settings import CheckSettings
from cloud_server.state.settings import RoundSettings
from fleet_model.protocol.outcome import Outcome
from fleet_model.protocol.version import PROTOCOL
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Checkpoint, TrainConfig, Update


def changed(section, **values):
    """Return a section of the settings with other values, checked."""
    return type(section)(**{**section.model_dump(), **values})


RULES = RoundSettings(quorum=2, deadline_s=100.0, wait_s=30.0)
BUFFERED = changed(RULES, mode="buffered")
CHECKS = CheckSettings(max_norm_ratio=0)
START = Checkpoint(version=7, weights={"w": np.zeros(3, np.float32)})
REQUEST = RobotRequest(
    deadline_s=60.0,
    run="run",
    round=1,
    checkpoint=START,
    config=TrainConfig(),
    trainer="",
    trainer_bytes=0,
)


def update(value=1.0, **changes):
    weights = {"w": np.full(3, value, np.float32)}
    good = Update(robot="", base_version=7, weights=weights, num_examples=10, num_steps=2)
    return replace(good, **changes)


KNOWN = ("site", "labels", "report", "speaks_for")  # of a robot, for its Participant


class Robots(Fleet):
    """A fleet: robot -> when it is online, how long it trains, what it answers.

    An answer is an update, a reason, or a function of the request. Questions and replies outlive a
    round and a killed server, as they do in Flower.
    """

    def __init__(self, robots):
        self.now = self.begin = 1000.0
        self.robots = robots
        self.sent = []  # (request, names, time to live)
        self.tickets = {}  # ticket -> (when it is answered, when it expires, answer)
        self.last = set()  # tickets of the last call of `replies`
        self.safe = set()  # tickets of the calls before it: their replies may be gone

    @property
    def clock(self):
        return Clock(now=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds

    def online(self):
        age = self.now - self.begin
        names = [
            name
            for name, robot in self.robots.items()
            if robot.get("from", 0) <= age < robot.get("until", math.inf)
        ]
        return [self.participant(name) for name in reversed(names)]

    def participant(self, name):
        known = {k: v for k, v in self.robots[name].items() if k in KNOWN}
        known = {"site": "hall", "protocol": PROTOCOL, **known}
        return Participant(node_id=hash(name), name=name, **known)

    def send(self, participants, request, ttl_s):
        self.sent.append((request, [p.name for p in participants], ttl_s))
        tickets = {}
        for participant in participants:
            robot = self.robots[participant.name]
            if robot.get("lost"):
                continue
            answer = robot.get("answer", update(base_version=request.checkpoint.version))
            answer = answer(request) if callable(answer) else answer
            ticket = f"{participant.name}-{len(self.tickets)}"
            answered_at = self.now + robot.get("after", 0)
            self.tickets[ticket] = (answered_at, self.now + ttl_s, answer)
            tickets[ticket] = participant
        return tickets

    def replies(self, tickets):
        self.safe |= self.last
        assert not self.safe & set(tickets), "asked again for what was returned"
        arrived = []
        for ticket in tickets:
            answered_at, _, answer = self.tickets[ticket]
            if self.now >= answered_at:
                given = "outcome" if isinstance(answer, Outcome) else "update"
                arrived.append((answered_at, Reply(ticket=ticket, **{given: answer})))
        self.last = {reply.ticket for _, reply in arrived}
        return [reply for _, reply in sorted(arrived, key=lambda one: one[0])]

    def still_open(self, tickets):
        known = {t: self.tickets[t] for t in tickets if t in self.tickets and t not in self.safe}
        return {
            ticket
            for ticket, (answered_at, expires_at, _) in known.items()
            if min(self.now, answered_at) < expires_at or answered_at <= self.now
        }

    def round(self, rules=RULES, *, rule=None, request=REQUEST, checks=CHECKS, **more):
        more = {"journal": MemoryJournal(), "stop": lambda: False, **more}
        return run_round(
            self, rule or FedAvg(), request, rules, checks, self.clock, more.pop("journal"), **more
        )

    def rounds(self, count, rules, **more):
        """Run several rounds as a run does; return the last checkpoint and all records."""
        journal, request, records = MemoryJournal(), REQUEST, []
        for number in range(1, count + 1):
            request = replace(request, round=number)
            checkpoint, record = self.round(rules, request=request, journal=journal, **more)
            journal.close(number)
            records.append(record)
            request = replace(request, checkpoint=checkpoint)
        return checkpoint, records


def outcomes(record):
    return {robot.name: robot.outcome.text for robot in record.robots}


def of(record, name):
    return next(robot for robot in record.robots if robot.name == name)
