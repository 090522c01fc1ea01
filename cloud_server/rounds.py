"""The round loop: choose robots, send, gather replies until all or the deadline, fold, close.

It knows no network and no clock of its own: a `Fleet` carries messages (flower_fleet.py in
production), and time comes in as two functions, so tests run it in microseconds.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from cloud_server.aggregation.aggregator import Aggregator
from fleet_model.errors import RoundError, UpdateError
from fleet_model.types import Checkpoint, Metrics, Update
from fleet_model.weights import require_same_tensors, size_bytes
from fleet_model.wire import TrainRequest

POLL_S = 0.05  # between looks at the replies: small against the seconds that training takes
ACCEPTED = "accepted"
MAX_REASON = 300  # characters of a robot's own words that are kept
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """One robot that is online now; name and site are the register's words."""

    node_id: int
    name: str
    site: str


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Reply:
    """What came back for one ticket: an update, or the reason why there is none."""

    ticket: str
    update: Update | None = None
    reason: str = ""


class Fleet(Protocol):
    """Carry messages between the round loop and robots."""

    def online(self) -> Sequence[Participant]:
        """Return the admitted robots that can be asked now."""
        ...

    def send(
        self, participants: Sequence[Participant], request: TrainRequest, ttl_s: float
    ) -> Mapping[str, Participant]:
        """Ask robots; return ticket -> participant of those that were reached."""
        ...

    def replies(self, tickets: Sequence[str]) -> Sequence[Reply]:
        """Return what has arrived for these tickets since the last call; never waits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRules:
    """Who takes part and when a round closes; see RoundSettings."""

    quorum: int
    deadline_s: float
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotRecord:
    """What one robot did in one round."""

    name: str
    site: str
    outcome: str  # ACCEPTED, or the reason why not
    num_examples: int = 0
    num_steps: int = 0
    update_bytes: int = 0
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """One line of the history."""

    run: str
    round: int
    version: int
    seconds: float
    robots: tuple[RobotRecord, ...]
    metrics: Metrics  # means over accepted robots, weighted by held-out examples

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds that only go up, and a way to wait."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


def run_round(
    fleet: Fleet, aggregator: Aggregator, request: TrainRequest, rules: RoundRules, clock: Clock
) -> tuple[Checkpoint, RoundRecord]:
    """Close one round and return the next checkpoint.

    Raises:
        RoundError: too few robots came online or too few good updates arrived; the message names
            each robot and why. The checkpoint that the round started from is still the newest.
    """
    begin = clock.now()
    participants = _choose(fleet, rules, clock)
    tickets = fleet.send(participants, request, rules.deadline_s)
    log.info("round %d: asked %s", request.round, _names(tickets.values()))
    replies = _gather(fleet, tickets, clock.now() + rules.deadline_s, clock)
    updates: list[Update] = []
    records: list[RobotRecord] = []
    # Folding in name order: the result does not depend on who was fastest, to the last bit.
    for ticket, robot in sorted(tickets.items(), key=lambda item: item[1].name):
        record, update = _judge(robot, replies.get(ticket), request.checkpoint)
        records.append(record)
        if update is not None:
            updates.append(update)
    if len(updates) < rules.quorum:
        outcomes = "; ".join(f"{r.name}: {r.outcome}" for r in records) or "no robot was reached"
        raise RoundError(
            f"round {request.round}: {len(updates)} good updates, expected {rules.quorum} "
            f"({outcomes})"
        )
    aggregator.begin(request.checkpoint)
    for update in updates:
        aggregator.add(update)
    checkpoint = aggregator.finish()
    require_same_tensors(  # finite updates may add up to infinity; the rule may be the user's own
        request.checkpoint.weights, checkpoint.weights, sender="aggregator", error=RoundError
    )
    return checkpoint, RoundRecord(
        run=request.run,
        round=request.round,
        version=checkpoint.version,
        seconds=clock.now() - begin,
        robots=tuple(records),
        metrics=mean_metrics(records),
    )


def mean_metrics(records: Sequence[RobotRecord]) -> Metrics:
    """Average each metric over accepted robots, weighted by the held-out examples behind it."""
    means: dict[str, float] = {}
    for name in ("loss_before", "loss_after", "accuracy_before", "accuracy_after"):
        pairs = [
            (r.metrics[name], max(r.metrics.get("held_out", 0.0), 0.0))
            for r in records
            if r.outcome == ACCEPTED and name in r.metrics
        ]
        if total := sum(weight for _, weight in pairs):
            mean = sum(value * weight for value, weight in pairs) / total
            if math.isfinite(mean):  # the history is JSON
                means[name] = mean
    return means


def _choose(fleet: Fleet, rules: RoundRules, clock: Clock) -> Sequence[Participant]:
    end = clock.now() + rules.wait_s
    while len(online := fleet.online()) < rules.quorum:
        if clock.now() >= end:
            raise RoundError(
                f"{len(online)} robots online ({_names(online)}), expected at least "
                f"{rules.quorum}; see `cloud-server robots list`, or lower rounds.quorum"
            )
        clock.sleep(POLL_S)
    return sorted(online, key=lambda robot: robot.name)


def _gather(
    fleet: Fleet, tickets: Mapping[str, Participant], end: float, clock: Clock
) -> Mapping[str, Reply]:
    replies: dict[str, Reply] = {}
    while (pending := [t for t in tickets if t not in replies]) and clock.now() < end:
        arrived = fleet.replies(pending)
        for reply in arrived:
            replies[reply.ticket] = reply
            log.info("robot %s: %s", tickets[reply.ticket].name, reply.reason or "update received")
        if not arrived:
            clock.sleep(POLL_S)
    return replies


def _judge(
    robot: Participant, reply: Reply | None, checkpoint: Checkpoint
) -> tuple[RobotRecord, Update | None]:
    """Decide whether an update counts; say why if not."""
    if reply is None:
        return RobotRecord(
            name=robot.name, site=robot.site, outcome="no reply by the deadline"
        ), None
    update = reply.update
    if update is None:
        return RobotRecord(name=robot.name, site=robot.site, outcome=reply.reason), None
    try:
        if update.base_version != checkpoint.version:
            raise UpdateError(
                f"trained from version {update.base_version}, expected {checkpoint.version}"
            )
        require_same_tensors(checkpoint.weights, update.weights, sender=f"robot {robot.name}")
        outcome = ACCEPTED
    except UpdateError as error:
        outcome, reply = f"refused: {error}"[:MAX_REASON], None
    record = RobotRecord(
        name=robot.name,
        site=robot.site,
        outcome=outcome,
        num_examples=update.num_examples,
        num_steps=update.num_steps,
        update_bytes=size_bytes(update.weights),
        metrics=dict(update.metrics),
    )
    return record, update if reply is not None else None


def _names(robots: "Sequence[Participant] | Any") -> str:
    return ", ".join(sorted(robot.name for robot in robots)) or "none"
