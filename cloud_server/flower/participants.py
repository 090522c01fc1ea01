"""Which robots a fleet may ask: the approved ones of the register, under Flower's node ids."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register, Robot
from cloud_server.rounds.fleet import Participant
from fleet_model.protocol.version import FIRST_PROTOCOL

T = TypeVar("T")


class Approved(Generic[T]):
    """What a fleet makes of the approved robots; made again when the register has changed."""

    def __init__(self, register: Register, make: Callable[[Sequence[Robot]], T]) -> None:
        """Make nothing yet.

        Args:
            register: says who is approved.
            make: called by one thread at a time; where it raises, the next look tries again.
        """
        self._register = register
        self._make = make
        self._listed: tuple[Robot, ...] | None = None  # as read last
        self._made: T | None = None
        self._lock = threading.Lock()  # requests and the run come from different threads

    def newest(self) -> T:
        """Return what was made of the robots that are approved now.

        While the register is damaged robots stay as they were; see Register.last_readable.
        """
        with self._lock:
            listed = self._register.last_readable()
            if self._made is None or listed is not self._listed:
                self._made = self._make([r for r in listed if r.state == "approved"])
                self._listed = listed
            return self._made


def shut_out(register: Register) -> Mapping[str, str]:
    """Return name -> state of the robots that an operator could approve."""
    listed = register.last_readable()
    return {r.name: r.state for r in listed if r.state in ("pending", "suspended")}


def participant_of(node_id: int, robot: Robot, seen: LastSeen) -> Participant:
    """Return a robot as the round loop knows it, with what it last reported."""
    return Participant(
        node_id=node_id,
        name=robot.name,
        site=robot.site,
        labels=robot.labels,
        report=seen.report(robot.name),
        last_seen_s=seen.last_seen_s(robot.name),
        protocol=seen.protocol(robot.name) or FIRST_PROTOCOL,
        speaks_for=robot.speaks_for,
    )
