"""Answers of robots that Flower refuses before the round loop sees them, since the server started.

They belong to no round's record: most come when their round has closed.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

from cloud_server.robots.register import Robot
from cloud_server.state.logs import Seldom

Why = Literal["again", "late", "repeated", "large", "misnamed"]
WORDS: Mapping[Why, str] = {
    "again": "answered again; the second answer is not counted",
    "late": "answered a question that was over; what came is dropped",
    # An honest robot does it when what the server said was lost: no offense.
    "repeated": "sent the same reply again; it counts once at most",
    "large": "announced a reply that is larger than one to this model can be; it is refused",
    "misnamed": "announced objects under names that are not theirs; the reply is refused",
}
log = logging.getLogger(__name__)


class RefusedAnswers:
    """Counts them by robot; thread-safe."""

    def __init__(
        self,
        robots: Callable[[], Mapping[int, Robot]],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take who knows the robots by node id: robots are known by name to people."""
        self._robots = robots
        self._seldom = Seldom(now_s=now_s)
        self._lock = threading.Lock()
        self._counts: dict[Why, Counter[str]] = {why: Counter() for why in WORDS}

    def add(self, node_id: int, why: Why) -> None:
        """Count an answer of an admitted robot, and say so."""
        robot = self._robots().get(node_id)
        if robot is None:  # it was suspended in this moment
            return
        with self._lock:
            self._counts[why][robot.name] += 1
        if (more := self._seldom.more((robot.name, why))) is not None:
            about = {"robot": robot.name, "site": robot.site}
            log.info("robot %s %s%s", robot.name, WORDS[why], more, extra=about)

    def counts(self, why: Why) -> Counter[str]:
        """Return robot -> answers; it belongs to the caller."""
        with self._lock:
            return self._counts[why].copy()
