"""Whether the agent's loop still turns. The main thread asks, and feeds systemd's watchdog."""

import time
from collections.abc import Callable

STALL_S = 600.0  # longer than any name lookup, silence of a server or check of a model


class Pulse:
    """The loop says when it will be back; another thread asks whether that time is over.

    What may last, but moves, is progress: a model that arrives over a bad link.
    """

    def __init__(
        self, progress: Callable[[], object], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin now.

        Args:
            progress: is another value whenever something has moved.
            now_s: a clock that nobody sets.
        """
        self._progress, self._now_s = progress, now_s
        self._seen = progress()
        self._back_by = self._moved_until = now_s() + STALL_S

    def expect(self, within_s: float = 0.0) -> None:
        """Say, in the loop, that its next step begins within that time, and what a step takes."""
        self._back_by = self._now_s() + within_s + STALL_S

    def is_alive(self) -> bool:
        """Return whether the loop turns, waits as it said, or moves something; ask it often."""
        now_s, progress = self._now_s(), self._progress()
        if progress != self._seen:
            self._seen, self._moved_until = progress, now_s + STALL_S
        return now_s < max(self._back_by, self._moved_until)
