"""How long to wait before trying again."""

import random

GROWTH = 1.3  # a wait is about a third of the time it has failed: who is back soon is met soon


class Backoff:
    """Wait 1 s, then longer and longer, up to `most_s`.

    Each wait is spread by half, so that a fleet does not call all together after a power cut.
    """

    def __init__(self, most_s: float = 60.0) -> None:
        self._most_s = most_s
        self._next = 1.0
        self._random = random.Random()  # noqa: S311  (not for secrets)

    def next_s(self) -> float:
        """Return how long to wait now."""
        wait_s = self._next * self._random.uniform(0.5, 1.5)
        self._next = min(self._next * GROWTH, self._most_s)
        return wait_s

    def reset(self) -> None:
        """It worked: start short again."""
        self._next = 1.0
