"""Where an open round stands, as a pure state machine: no fleet, no clock, no disk.

round_loop.py drives it: what happened goes in (`plan`, `sent`, `take`), what must be kept, and
whether the round can close, comes out.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from cloud_server.aggregation.personal import shared_part
from cloud_server.rounds.choosing import choose
from cloud_server.rounds.fleet import Participant, Reply
from cloud_server.rounds.folding import Judged, judge, robot_records
from cloud_server.rounds.reply_kinds import KINDS, ReplyKind
from cloud_server.rounds.reply_spool import Kept
from cloud_server.rounds.round_journal import OpenRound, Ticket
from cloud_server.rounds.update_checks import label_counts, reply_bytes, without_asked_groups
from cloud_server.state.learning_settings import CheckSettings
from cloud_server.state.round_record import RobotRecord, RoundRecord, label_totals, spread
from cloud_server.state.settings import RoundSettings
from fleet_model.adapters.spec import sent_back
from fleet_model.compression.coding import decoded
from fleet_model.errors import UpdateError
from fleet_model.measures import finite
from fleet_model.protocol.outcome import ACCEPTED, FAILED, NO_REPLY, NOT_REACHED, Outcome
from fleet_model.protocol.relayed import speaks_for
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import TRAIN, Checkpoint, Update
from fleet_model.weights import size_bytes

# What only the round itself may say of a robot, never a fleet.
_OF_ROUNDS = ("accepted", "late", "not_reached")


@dataclass
class RoundState:
    """Robots and tickets of one round; see OpenRound for what of it is durable."""

    request: RobotRequest
    rules: RoundSettings
    checks: CheckSettings
    kind: ReplyKind = KINDS[TRAIN]
    single: str = ""  # why no site relay can answer; "": it can
    robots: dict[str, Participant] = field(default_factory=dict)  # to be asked in this round
    unasked: set[str] = field(default_factory=set)  # those of them without a ticket, by name
    awaited: dict[str, Ticket] = field(default_factory=dict)  # by id; also of earlier rounds
    kept: list[Kept] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)  # robots, by name; in this round
    good: set[str] = field(default_factory=set)  # robots with an update that may be folded in
    attempt: int = 0  # how often the round has failed before
    # Tickets of this round that a process before this one has sent: they expire before the
    # deadline, which began anew. sync only: a buffered round asks idle robots all the time.
    inherited: set[str] = field(default_factory=set)

    def choose(
        self, online: Sequence[Participant], slots: int, seed: Sequence[int]
    ) -> tuple[Sequence[Participant], Mapping[str, str]]:
        """Return whom to ask of those that are idle and understand the request; see choosing.py."""
        lowest = self.request.lowest_protocol
        return choose(self.idle(online), self.rules, slots, seed, lowest, single=self.single)

    @cached_property
    def start(self) -> Checkpoint:
        """What replies are held against: of updates, what does not stay on the robots."""
        request = self.request
        personal = request.personal if request.kind == TRAIN else ()
        return shared_part(request.checkpoint, personal)

    @property
    def buffered(self) -> bool:
        """Return whether tickets live on over rounds."""
        return self.rules.mode == "buffered"

    def resume(self, before: OpenRound, kept: Sequence[Kept]) -> None:
        """Take over what a process before this one has kept of the same round."""
        self.robots = {robot.name: robot for robot in before.robots}
        for one in kept:
            self._note(one)
        number = self.request.round
        mine = {name: t for name, t in self.awaited.items() if t.round == number}
        self.unasked = self.robots.keys() - self.answered - {t.robot.name for t in mine.values()}
        self.inherited = set() if self.buffered else set(mine)

    def idle(self, online: Sequence[Participant]) -> list[Participant]:
        """Return robots that are not asked in this round, nor at work for one before it."""
        taken = self.robots.keys() | (self.at_work() | self.good if self.buffered else set())
        return [robot for robot in online if robot.name not in taken]

    def at_work(self) -> set[str]:
        """Return the names of robots that have not answered."""
        return {ticket.robot.name for ticket in self.awaited.values()}

    def plan(self, online: Sequence[Participant]) -> None:
        """Decide which robots will be asked in this round, too."""
        slots = self.rules.target
        if self.buffered and slots:
            slots -= len(self.awaited) + sum(robot.name in self.unasked for robot in online)
            if slots <= 0:
                return
        request, start = self.request, self.request.checkpoint
        # Another draw in every attempt: one dead robot must not fail a round for ever.
        run = zlib.crc32(request.run.encode())
        seed = (start.seed, start.version, run, request.round, self.attempt)
        chosen, _ = self.choose(online, slots, seed)
        for robot in chosen:
            self.robots[robot.name] = _bare(robot)
            self.unasked.add(robot.name)

    def sent(self, tickets: Mapping[str, Participant]) -> None:
        """Await these."""
        for ticket, robot in tickets.items():
            self.awaited[ticket] = Ticket(
                id=ticket,
                robot=self.robots[robot.name],
                round=self.request.round,
                version=self.request.checkpoint.version,
            )
            self.unasked.discard(robot.name)

    def take(self, replies: Sequence[Reply]) -> list[tuple[Kept, Update | None]]:
        """Check replies; return what is to be kept. Those that nobody awaits are dropped."""
        taken: list[tuple[Kept, Update | None]] = []
        for reply in replies:
            ticket = self.awaited.pop(reply.ticket, None)
            if ticket is None:
                continue
            if ticket.id in self.inherited and reply.outcome.kind == "no_reply":
                self.unasked.add(ticket.robot.name)  # there is time to ask it once more
                continue
            kept, update = self._check(ticket, reply)
            taken.append((kept, update))
            self._note(kept)
        return taken

    def complete(self) -> bool:
        """Return whether the round can close before its deadline."""
        if self.buffered:
            return len(self.good) >= self.rules.quorum
        return len(self.answered) == len(self.robots)

    def judged(self) -> Judged:
        """Return the replies that belong to this round, and what of each counts."""
        mine = (kept for kept in self.kept if self._counts(kept))
        return judge(mine, self.start, self.checks)

    def record(self, judged: Judged, seconds: float) -> RoundRecord:
        """Return what the history says."""
        silent = {
            name: RobotRecord(name=name, site=robot.site, outcome=self._why_silent(name))
            for name, robot in self.robots.items()
            # buffered: a robot that is still at work has not failed the round
            if not self.buffered or len(judged.accepted) < self.rules.quorum
        }
        version = self.request.checkpoint.version
        robots = robot_records(judged, silent, version)
        means = self.kind.means(robots, self.checks)
        return RoundRecord(
            run=self.request.run,
            round=self.request.round,
            version=version,
            seconds=seconds,
            robots=robots,
            metrics=means,
            label_counts=label_totals(robots, self.request.labels),
            spread=spread(robots, means),
            asked=self.asked(),
            request_bytes=size_bytes(self.request.checkpoint.weights),
            late=sum(one.verdict.kind == "late" for one in self.kept),
            mode=self.rules.mode,
        )

    def asked(self) -> int:
        """Return the number of robots that had a ticket in this round."""
        if self.buffered:
            return len(self.answered | self.at_work())
        return len(self.robots) - len(self.unasked)

    def told(self, most: int) -> list[tuple[str, str, str]]:
        """Return robot, kind and text of the outcome, of at most so many of the last replies."""
        return [
            (one.robot, one.verdict.kind, one.verdict.text)
            for one in self.kept[-most:]
            if self._counts(one)
        ]

    def as_open_round(self) -> OpenRound:
        """Return what the journal keeps beside the replies."""
        return OpenRound(
            run=self.request.run,
            round=self.request.round,
            base_version=self.request.checkpoint.version,
            mode=self.rules.mode,
            robots=tuple(self.robots.values()),
            tickets=tuple(self.awaited.values()),
            attempt=self.attempt,
            personal=self.request.personal,
        )

    def _check(self, ticket: Ticket, reply: Reply) -> tuple[Kept, Update | None]:
        """Return what is kept of a reply, and the update if it may be folded in."""
        robot = ticket.robot
        taken = partial(
            Kept, ticket=ticket.id, robot=robot.name, site=robot.site, round=ticket.round
        )
        if (update := reply.update) is None:
            return taken(verdict=_of_fleet(reply.outcome)), None
        kept = taken(
            verdict=ACCEPTED,
            kind=update.kind,
            groups=tuple(update.groups),
            base_version=update.base_version,
            num_examples=update.num_examples,
            num_steps=update.num_steps,
            update_bytes=reply_bytes(update),
            codec=update.codec,
            metrics=finite(update.metrics),
            speaks_for=speaks_for(update, robot.speaks_for),
        )
        if late := self._why_late(kept, ticket):
            return replace(kept, verdict=Outcome("late", late)), None
        try:
            if update.kind != self.request.kind:
                raise UpdateError(f"it is of kind {update.kind}, expected {self.request.kind}")
            like = sent_back(self.start.weights)
            update = decoded(replace(update, robot=kept.robot), like)
            bare = without_asked_groups(update, self.request.reply_groups)
            self.kind.check(bare, self.start, ticket.version, self.checks)
            counts = label_counts(update, self.request.labels)
        except UpdateError as error:
            return replace(kept, verdict=Outcome("refused", str(error))), None
        return replace(kept, norm=self.kind.length(update), label_counts=counts), update

    def _why_late(self, kept: Kept, ticket: Ticket) -> str:
        """Return why an update is too old to be of use, "" if it is not; a lie is not late."""
        if not self._counts(kept):
            return "its round had closed"
        staleness, most = self.request.checkpoint.version - ticket.version, self.rules.max_staleness
        if not self.buffered or staleness <= most or kept.base_version != ticket.version:
            return ""
        return (
            f"its update is {staleness} versions old, expected at most {most} "
            "(rounds.max_staleness, or its labels have changed since)"
        )

    def _note(self, kept: Kept) -> None:
        self.kept.append(kept)
        if self._counts(kept):
            self.answered.add(kept.robot)
        if kept.verdict == ACCEPTED:
            self.good.add(kept.robot)

    def _counts(self, kept: Kept) -> bool:
        """Return whether a reply belongs to this round."""
        return self.buffered or kept.round == self.request.round

    def _why_silent(self, name: str) -> Outcome:
        return NOT_REACHED if name in self.unasked else NO_REPLY


def _of_fleet(outcome: Outcome) -> Outcome:
    return FAILED if outcome.kind in _OF_ROUNDS else outcome


def _bare(robot: Participant) -> Participant:
    """Return what the journal needs of a robot."""
    return replace(robot, report=None, last_seen_s=None)
