"""How many requests are at work at once; the others wait in line, but not too long.

A server that begins everything that a thousand robots ask at the same moment finishes little before
they give up and ask again, and so on for ever. So sessions begin only while nothing else waits, and
who has waited too long to begin one is told to come again later. What follows in a session waits
for its turn, which comes soon: robots that are let in find a server that has time for them.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from cloud_server.state.logs import Seldom

TOLD_S = 600.0  # for so long `status` tells of it
MOST = 12  # a request waits for the database or a thread for half of its time
PATIENCE_S = 4.0  # robots give up after 10 s, of which the way and the work itself are part
log = logging.getLogger(__name__)


class TooManyError(Exception):
    """It was not its turn in time."""


class AtOnce:
    """Two lines, each first come, first served; lives in one event loop."""

    def __init__(
        self,
        most: int = MOST,
        patience_s: float = PATIENCE_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with empty lines.

        Args:
            most: requests at work at once, at least 1.
            patience_s: how long one waits that is to be the last.
            now_s: a clock that nobody sets.
        """
        self._free, self._patience_s, self._now_s = most, patience_s, now_s
        self._put_off, self._told_until = 0, 0.0
        self._seldom = Seldom()
        self._lines: tuple[deque[asyncio.Event], ...] = (deque(), deque())

    @asynccontextmanager
    async def turn(self, *, last: bool) -> AsyncIterator[Callable[[], None]]:
        """Wait for a turn and have it; what is given ends it early.

        Args:
            last: it begins a session. While anything else waits, let that go first.

        Raises:
            TooManyError: there was none in time for what is to be the last.
        """
        called, line, over = asyncio.Event(), self._lines[last], False

        def end() -> None:
            nonlocal over
            if not over:
                over = True
                self._free += 1
                self._call()

        line.append(called)
        self._call()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s if last else None):
                    await called.wait()
            if not called.is_set():
                self._note()
                raise TooManyError
            yield end
        finally:
            if called.is_set():
                end()
            else:
                line.remove(called)

    def _call(self) -> None:
        """Give the free turns to who is first."""
        while self._free and (line := next(filter(None, self._lines), None)):
            line.popleft().set()
            self._free -= 1

    @property
    def is_busy(self) -> bool:
        """Whether requests of sessions that go on wait: it is no time to ask for more."""
        return bool(self._lines[0])

    def words(self) -> list[str]:
        """Return a sentence for `status` while it has happened lately; from any thread."""
        if self._now_s() >= self._told_until:
            return []
        return [
            f"{self._put_off} sessions of robots were put off lately: more begin at once than this "
            "server can answer; the robots ask again by themselves. If it does not end, give the "
            "server a faster processor, or let a site relay speak for each building"
        ]

    def _note(self) -> None:
        now_s = self._now_s()
        self._put_off = 1 if now_s >= self._told_until else self._put_off + 1
        self._told_until = now_s + TOLD_S
        if (more := self._seldom.more("")) is not None:
            log.warning("a session of a robot is put off: too many begin at once%s", more)
