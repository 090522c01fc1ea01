"""Where an open round stands, as a pure state machine: no fleet, no clock, no disk.

rounds.py drives it: what happened goes in (`plan`, `sent`, `take`), what must be kept, and whether
the round can close, comes out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cloud_server.choosing import choose
from cloud_server.fleet import Participant, Reply
from cloud_server.folding import Judged, judge, robot_records
from cloud_server.reply_spool import Kept
from cloud_server.round_journal import OpenRound, Ticket
from cloud_server.round_record import (
    ACCEPTED,
    LATE,
    MAX_REASON,
    NO_REPLY,
    NOT_REACHED,
    REFUSED,
    RobotRecord,
    RoundRecord,
    mean_metrics,
)
from cloud_server.round_rules import RoundRules
from cloud_server.update_checks import Checks, check_update, norm_of
from fleet_model.errors import UpdateError
from fleet_model.types import Update
from fleet_model.weights import size_bytes
from fleet_model.wire import TrainRequest


@dataclass(slots=True)
class RoundState:
    """Robots and tickets of one round; see OpenRound for what of it is durable."""

    request: TrainRequest
    rules: RoundRules
    checks: Checks
    robots: dict[str, Participant] = field(default_factory=dict)  # to be asked in this round
    unasked: set[str] = field(default_factory=set)  # those of them without a ticket, by name
    awaited: dict[str, Ticket] = field(default_factory=dict)  # by id; also of earlier rounds
    kept: list[Kept] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)  # robots, by name; in this round
    good: set[str] = field(default_factory=set)  # robots with an update that may be folded in
    replays: int = 0  # replies to tickets that nobody awaits

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
        asked = {t.robot.name for t in self.awaited.values() if t.round == number}
        self.unasked = self.robots.keys() - self.answered - asked

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
        start = self.request.checkpoint
        chosen, _ = choose(
            self.idle(online), self.rules.selection, slots, (start.seed, start.version)
        )
        for robot in chosen:
            self.robots[robot.name] = _bare(robot)
            self.unasked.add(robot.name)

    def sent(self, tickets: Mapping[str, Participant]) -> None:
        """Await these."""
        for ticket, robot in tickets.items():
            self.awaited[ticket] = Ticket(
                id=ticket,
                robot=_bare(robot),
                round=self.request.round,
                version=self.request.checkpoint.version,
            )
            self.unasked.discard(robot.name)

    def take(self, replies: Sequence[Reply]) -> list[tuple[Kept, Update | None]]:
        """Check replies; return what is to be kept. Those that nobody awaits are only counted."""
        taken: list[tuple[Kept, Update | None]] = []
        for reply in replies:
            ticket = self.awaited.pop(reply.ticket, None)
            if ticket is None:
                self.replays += 1
                continue
            kept = self._check(ticket, reply)
            taken.append((kept, reply.update if kept.verdict == ACCEPTED else None))
            self._note(kept)
        return taken

    def complete(self) -> bool:
        """Return whether the round can close before its deadline."""
        if self.buffered:
            enough = self.rules.quorum
            return len(self.good) >= enough and len(self.judged().accepted) >= enough
        return len(self.answered) == len(self.robots)

    def judged(self) -> Judged:
        """Return the replies that count in this round, with their verdicts."""
        mine = (kept for kept in self.kept if self._counts(kept))
        return judge(mine, self.request.checkpoint, self.checks)

    def record(self, judged: Judged, seconds: float) -> RoundRecord:
        """Return what the history says."""
        silent = {
            name: RobotRecord(name=name, site=robot.site, outcome=self._why_silent(name))
            for name, robot in self.robots.items()
            # buffered: a robot that is still at work has not failed the round
            if not self.buffered or len(judged.accepted) < self.rules.quorum
        }
        version = self.request.checkpoint.version
        robots = robot_records(judged, silent, version, self.checks)
        return RoundRecord(
            run=self.request.run,
            round=self.request.round,
            version=version,
            seconds=seconds,
            robots=robots,
            metrics=mean_metrics(robots),
            asked=self.asked(),
            late=sum(one.verdict == LATE for one in self.kept),
            duplicates=self.replays,
            mode=self.rules.mode,
        )

    def asked(self) -> int:
        """Return the number of robots that had a ticket in this round."""
        if self.buffered:
            return len(self.answered | self.at_work())
        return len(self.robots) - len(self.unasked)

    def as_open_round(self) -> OpenRound:
        """Return what the journal keeps beside the replies."""
        return OpenRound(
            run=self.request.run,
            round=self.request.round,
            base_version=self.request.checkpoint.version,
            mode=self.rules.mode,
            robots=tuple(self.robots.values()),
            tickets=tuple(self.awaited.values()),
        )

    def _check(self, ticket: Ticket, reply: Reply) -> Kept:
        kept = Kept(
            ticket=ticket.id,
            robot=ticket.robot.name,
            site=ticket.robot.site,
            round=ticket.round,
            verdict=reply.reason[:MAX_REASON] or "an error without a reason",
        )
        if (update := reply.update) is None:
            return kept
        kept = replace(
            kept,
            verdict=ACCEPTED,
            base_version=update.base_version,
            num_examples=update.num_examples,
            num_steps=update.num_steps,
            update_bytes=size_bytes(update.weights),
            metrics={n: float(v) for n, v in update.metrics.items() if math.isfinite(v)},
        )
        if not self._counts(kept):
            return replace(kept, verdict=LATE)
        try:
            max_staleness = self.rules.max_staleness if self.buffered else 0
            start, update = self.request.checkpoint, replace(update, robot=kept.robot)
            check_update(update, start, ticket.version, max_staleness, self.checks)
        except UpdateError as error:
            return replace(kept, verdict=f"{REFUSED}{error}"[:MAX_REASON])
        return replace(kept, norm=norm_of(update.weights))

    def _note(self, kept: Kept) -> None:
        self.kept.append(kept)
        if self._counts(kept):
            self.answered.add(kept.robot)
        if kept.verdict == ACCEPTED:
            self.good.add(kept.robot)

    def _counts(self, kept: Kept) -> bool:
        """Return whether a reply belongs to this round."""
        return self.buffered or kept.round == self.request.round

    def _why_silent(self, name: str) -> str:
        return NOT_REACHED if name in self.unasked else NO_REPLY


def _bare(robot: Participant) -> Participant:
    """Return what the journal needs of a robot."""
    return replace(robot, report=None, last_seen_s=None)
