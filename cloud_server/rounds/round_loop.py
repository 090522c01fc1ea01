"""The round loop: choose robots, send, keep replies as they arrive, close, fold.

It knows no network, no disk and no clock of its own: a `Fleet` carries messages, a `RoundJournal`
keeps what must not be lost, and time comes in as two functions, so tests run hours in microseconds.

sync: a round asks its robots once and closes when all have answered, or at the deadline.
buffered (FedBuff, arXiv:2106.06639): idle robots are asked all the time, and a round closes with
every `quorum` good updates; older ones count less.
"""

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from itertools import islice

from cloud_server.aggregation.aggregator import Aggregator, has
from cloud_server.aggregation.personal import with_personal
from cloud_server.rounds.choosing import ADDS_UP, FOLDS
from cloud_server.rounds.fleet import Clock, Fleet, Participant, Reply
from cloud_server.rounds.progress import MAX_TOLD, RoundProgress
from cloud_server.rounds.reply_kinds import KINDS, ReplyKind, RoundEnd
from cloud_server.rounds.round_journal import RoundJournal
from cloud_server.rounds.round_state import RoundState
from cloud_server.rounds.starts import by_start
from cloud_server.state.learning_settings import CheckSettings
from cloud_server.state.round_record import RobotRecord, RoundRecord, mean_metrics
from cloud_server.state.settings import RoundSettings
from cloud_server.state.verdict_log import tell_verdicts
from cloud_server.state.words import NAMED, few, names
from fleet_model.errors import RoundError, StoppedError
from fleet_model.protocol.outcome import ACCEPTED, NO_REPLY
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import SUMS, Checkpoint
from fleet_model.weights import size_bytes

__all__ = [  # all that users of the loop need, from one place
    "CheckSettings", "Clock", "Fleet", "Participant", "QuorumError", "Reply", "RobotRecord",
    "RoundProgress", "RoundRecord", "RoundSettings", "mean_metrics", "run_round",
]  # fmt: skip

POLL_S = 0.05  # between looks at the replies: small against the seconds that training takes
LOOK_S = 1.0  # between looks for robots that are still to be asked
MAX_READ_BYTES = 16 << 20  # of updates that are in memory together
TELL_S = 60.0  # between words on whom a round waits for: robots may come and go all the time
CHECK_S = 10.0  # between looks for questions that can no longer be answered
log = logging.getLogger(__name__)


class QuorumError(RoundError):
    """Too few good updates; `record` says who did what, so that robots can be told."""

    def __init__(self, message: str, record: RoundRecord) -> None:
        super().__init__(message)
        self.record = record


def run_round(
    fleet: Fleet,
    rule: Aggregator | None,
    request: RobotRequest,
    rules: RoundSettings,
    checks: CheckSettings,
    clock: Clock,
    journal: RoundJournal,
    *,
    stop: Callable[[], bool],
    watch: Callable[[RoundProgress], None] = lambda _: None,
    kinds: Mapping[str, ReplyKind] = KINDS,
) -> tuple[Checkpoint, RoundRecord]:
    """Close one round, or the rest of it, and return the checkpoint that its replies make.

    The caller makes the checkpoint durable, then calls `journal.close(request.round)`. Killed at
    any moment before that and called again with the same run, round and base version, it goes on:
    robots whose reply was kept are not asked again, questions that are still open are awaited, and
    the other robots of the round are asked again. The deadline begins anew.

    Raises:
        RoundError: too few robots came online, or (QuorumError) too few good updates arrived; the
            message names robots and why, the error's record each of them. The round is then closed
            in the journal: called again, it begins anew.
        StoppedError: `stop` said so; called again, the round goes on.
        StorageError: the journal cannot keep a reply.
    """
    begin = clock.now()
    kind = kinds[request.kind]
    state = RoundState(request, rules, checks, kind, single=_no_relays(rule, request))
    _Loop(fleet, state, clock, journal, stop, watch).run()
    judged = state.judged()
    record = state.record(judged, clock.now() - begin)
    tell_verdicts(record, {(kept.robot, kept.verdict) for kept in state.kept})
    try:
        if len(judged.accepted) < rules.quorum:
            raise QuorumError(
                f"round {request.round}: {len(judged.accepted)} good updates, expected "
                f"{rules.quorum} ({_outcomes(record)})",
                record,
            )
        checkpoint = kind.use(
            RoundEnd(
                checkpoint=state.start,
                accepted=judged.accepted,
                journal=journal,
                rule=rule,
            )
        )
    except RoundError:
        journal.close(request.round)
        raise
    checkpoint = with_personal(checkpoint, request.checkpoint, request.personal)
    return checkpoint, replace(record, version=checkpoint.version, seconds=clock.now() - begin)


@dataclass(frozen=True, slots=True)
class _Loop:
    """Carries what happens outside into the state; nothing is acted on before it is durable."""

    fleet: Fleet
    state: RoundState
    clock: Clock
    journal: RoundJournal
    stop: Callable[[], bool]
    watch: Callable[[RoundProgress], None]

    def run(self) -> None:
        """Ask and take replies until the round can close, or its deadline."""
        self._take_up()
        if not self.state.robots:
            self._wait_for_quorum()
        begin = self.clock.now()
        deadline = begin + self.state.rules.deadline_s
        # At once where robots may wait for the answer to a question of an earlier round.
        look_at, check_at = -math.inf, self.clock.now() + (0 if self.state.buffered else CHECK_S)
        while not self.state.complete() and (now := self.clock.now()) < deadline:
            self._require_going_on()
            if now >= look_at:
                self._ask(deadline - now)
                self._tell(begin, deadline)
                look_at = now + LOOK_S
            if self._keep(self.fleet.replies(self.state.awaited.keys())):
                self._tell(begin, deadline)
            elif now >= check_at:
                self._keep(self._lost())
                check_at = now + CHECK_S
            else:
                self.clock.sleep(POLL_S)
        self._drain()
        self._tell(begin, deadline)

    def _drain(self) -> None:
        """Take what had arrived by the deadline; it ends, for nobody is asked any more."""
        self.state.inherited.clear()  # there is no time left to ask again
        while not self.state.complete() and self._keep(
            self.fleet.replies(self.state.awaited.keys())
        ):
            self._require_going_on()

    def _take_up(self) -> None:
        """Go on where a process before this one ended, or take over its unanswered tickets."""
        state, request = self.state, self.state.request
        before = self.journal.load()
        if before is None or before.run != request.run:
            return  # tickets of another run are answered to that run
        kept = self.journal.kept()
        done = {one.ticket for one in kept}
        waiting = {ticket.id: ticket for ticket in before.tickets if ticket.id not in done}
        # In any case: a question that nobody speaks of after a restart, the fleet may withdraw.
        alive = self.fleet.still_open(waiting.keys()) if waiting else set()
        same = before.key == state.as_open_round().key
        state.attempt = before.attempt + before.closed if same else 0
        if not same or before.closed:
            # sync: of the round before, a reply may still come or lie there: it is late.
            state.awaited = {
                name: ticket
                for name, ticket in waiting.items()
                if state.buffered or ticket.round == request.round - 1
            }
        else:
            state.awaited = {name: waiting[name] for name in waiting if name in alive}
            state.resume(before, kept)
            log.info(
                "round %d is taken up again: %d replies kept, still at work: %s, to be asked: %s",
                request.round, len(kept), names(state.at_work()), names(state.unasked),
                extra=self._about(),
            )  # fmt: skip

    def _wait_for_quorum(self) -> None:
        state, rules = self.state, self.state.rules
        begin = self.clock.now()
        end = begin + rules.wait_s
        told, tell_at = "", -math.inf
        while True:
            self._require_going_on()
            online = self.fleet.online()
            fit, left_out = state.choose(online, 0, ())
            able = {robot.name for robot in fit} | (state.at_work() if state.buffered else set())
            if len(able) >= rules.quorum:
                break
            now = self.clock.now()
            words = _too_few(able, left_out, self._shut_out(), rules.quorum)
            if now >= end:
                raise RoundError(words)
            self._tell(begin, end, words)
            if now >= tell_at:
                tell_at = now + TELL_S
                if words != told:
                    log.info("round %d waits: %s", state.request.round, words, extra=self._about())
                    told = words
            self.clock.sleep(POLL_S)
        for name, reason in left_out.items():
            about = self._about(robot=name)
            log.info("round %d: %s is left out: %s", about["round"], name, reason, extra=about)
        state.plan(online)
        # Before anybody is asked: killed while sending, the same robots are asked again.
        self.journal.write(state.as_open_round())

    def _shut_out(self) -> Mapping[str, Sequence[str]]:
        """Return state -> robots that this round could ask if the operator approved them."""
        states: dict[str, list[str]] = {}
        for name, state in sorted(self.fleet.shut_out().items()):
            if name in self.state.rules.robots or not self.state.rules.robots:
                states.setdefault(state, []).append(name)
        return states

    def _ask(self, ttl_s: float) -> None:
        """Send the request to robots that still lack it and can be reached."""
        state = self.state
        if state.buffered:
            state.plan(self.fleet.online())
            ttl_s = state.rules.deadline_s  # the question may outlive this round
        if not state.unasked:
            return
        able = [r for r in self.fleet.online() if r.name in state.unasked and not r.busy]
        if not able:
            return
        request = replace(state.request, deadline_s=min(ttl_s, state.request.deadline_s))
        able.sort(key=lambda robot: robot.name)
        sent: dict[str, Participant] = {}
        for one, robots in by_start(request, able, state.robots):
            sent |= self.fleet.send(robots, one, ttl_s)
        state.sent(sent)
        self.journal.write(state.as_open_round())
        asked = names(robot.name for robot in sent.values())
        log.info("round %d: asked %s", state.request.round, asked, extra=self._about())

    def _keep(self, replies: Sequence[Reply]) -> bool:
        """Make replies durable; return whether there were any. No update is held after it."""
        # Coded updates are many times as large once they are read: then a few at a time.
        model_bytes = size_bytes(self.state.request.checkpoint.weights)
        at_once = max(1, MAX_READ_BYTES // max(1, model_bytes))
        for start in range(0, len(replies), at_once):
            self._keep_some(replies[start : start + at_once])
        return bool(replies)

    def _keep_some(self, replies: Sequence[Reply]) -> None:
        taken = self.state.take(replies)
        if taken:
            self.journal.keep(taken)
        for kept, _ in taken:
            good = kept.verdict == ACCEPTED
            words = "update received" if good else kept.verdict.text
            about = self._about(robot=kept.robot)
            log.info("round %d: robot %s: %s", about["round"], kept.robot, words, extra=about)

    def _lost(self) -> list[Reply]:
        """Answer for questions that can no longer be answered."""
        alive = self.fleet.still_open(self.state.awaited.keys())
        return [
            Reply(ticket=ticket, outcome=NO_REPLY)
            for ticket in self.state.awaited
            if ticket not in alive
        ]

    def _require_going_on(self) -> None:
        if self.stop():
            request = self.state.request
            raise StoppedError(
                f"run {request.run} was stopped in round {request.round}; go on with "
                f"`cloud-server runs resume DIR {request.run}`"
            )

    def _tell(self, begin: float, deadline: float, waits: str = "") -> None:
        state = self.state
        # Of many some: all names, sorted after every reply, would cost as much as the round itself.
        at_work = islice((ticket.robot.name for ticket in state.awaited.values()), NAMED + 1)
        awaited = sorted([*at_work, *nsmallest(NAMED + 1, state.unasked)])[: NAMED + 1]
        self.watch(
            RoundProgress(
                run=state.request.run,
                round=state.request.round,
                asked=state.asked(),
                answered=len(state.answered),
                good=len(state.good),
                began=begin,
                deadline=deadline,
                awaited=awaited,
                waits=waits,
                replies=state.told(MAX_TOLD),
            )
        )

    def _about(self, **fields: object) -> dict[str, object]:
        """Return the fields of a log line."""
        return {"run": self.state.request.run, "round": self.state.request.round, **fields}


def _no_relays(rule: Aggregator | None, request: RobotRequest) -> str:
    """Return why no site relay can answer, "" if it can: the server may have begun without any."""
    if rule is not None and not has(rule, "takes_means"):
        return FOLDS
    low_rank = request.kind == SUMS and request.config.sums_directions > 0
    return ADDS_UP if low_rank else ""


def _too_few(
    able: Collection[str],
    left_out: Mapping[str, str],
    shut_out: Mapping[str, Sequence[str]],
    quorum: int,
) -> str:
    noun = "robot" if len(able) == 1 else "robots"
    out = few([f"{name} is left out ({reason})" for name, reason in left_out.items()])
    out += [f"{state}: {names(robots)}" for state, robots in sorted(shut_out.items())]
    told = "; ".join([f"expected at least {quorum}", *out])
    lower = ", or lower rounds.quorum" if quorum > 1 else ""
    see = "see `cloud-server robots list DIR`"
    if waiting := [name for robots in shut_out.values() for name in robots][:NAMED]:
        see = f"`cloud-server robots approve DIR {' '.join(waiting)}` lets them take part"
    return f"{len(able)} {noun} online ({names(able)}), {told}; {see}{lower}"


def _outcomes(record: RoundRecord) -> str:
    """Return who did what; where not all can be named, those that failed come first."""
    robots = list(record.robots)
    if len(robots) > NAMED:
        robots.sort(key=lambda robot: robot.accepted)
    return "; ".join(few([f"{robot.name}: {robot.outcome.text}" for robot in robots]))
