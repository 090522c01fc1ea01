"""The seam between the round loop and whatever carries its messages to robots."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet_model.protocol.outcome import FAILED, Outcome
from fleet_model.protocol.report import RobotReport
from fleet_model.protocol.version import FIRST_PROTOCOL, PROTOCOL
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """One robot that may be asked; name, site and labels are the register's words."""

    node_id: int
    name: str
    site: str
    labels: tuple[str, ...] = ()
    report: RobotReport | None = None  # what it last told about itself
    last_seen_s: float | None = None  # seconds since its last look at the server
    protocol: int = FIRST_PROTOCOL  # that its agent says it speaks: any number from 1
    speaks_for: int = 1  # robots that it may answer for: more than 1 of a site relay

    @property
    def busy(self) -> str:
        """Return why the robot wants no training now; "" if it does not mind."""
        return self.report.busy if self.report is not None else ""

    @property
    def common_protocol(self) -> int:
        """Return the protocol of messages to it: the highest that this server and it know."""
        return min(self.protocol, PROTOCOL)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Reply:
    """What came back for one ticket: an update, or the outcome without one."""

    ticket: str
    update: Update | None = None
    outcome: Outcome = FAILED  # counts only where there is no update


class Fleet(Protocol):
    """Carry messages between the round loop and robots.

    A ticket is the id of one question to one robot. Tickets are the fleet's own words, and outlive
    the process where questions and replies do.
    """

    def online(self) -> Sequence[Participant]:
        """Return the approved robots that can be reached now, busy ones too."""
        ...

    def shut_out(self) -> Mapping[str, str]:
        """Return name -> state of robots that could be asked if the operator approved them."""
        return {}

    def send(
        self, participants: Sequence[Participant], request: RobotRequest, ttl_s: float
    ) -> Mapping[str, Participant]:
        """Ask robots; return ticket -> participant of those whose question is on its way."""
        ...

    def replies(self, tickets: Collection[str]) -> Sequence[Reply]:
        """Return what has arrived for these tickets, each reply once; never waits.

        All that one call returns is in memory together: a fleet of large models returns a few at a
        time. The next call, whatever its tickets, means that the replies of the call before are
        safe: only then may the fleet drop its own copies of them. A process that is killed in
        between asks for their tickets again, and must be given them again.
        """
        ...

    def still_open(self, tickets: Collection[str]) -> set[str]:
        """Return those that can still be answered, or are answered and not yet returned.

        Not those whose time to live has passed, whose robot is gone, or that nobody knows. A fleet
        whose process has restarted may withdraw with its first question what no call named before.
        """
        ...


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds that only go up, and a way to wait."""

    now: Callable[[], float]
    sleep: Callable[[float], None]
