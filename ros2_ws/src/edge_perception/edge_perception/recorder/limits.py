"""Say when it is enough: by rate, and per minute, hour and day."""

import math
from collections import deque
from dataclasses import dataclass

from fleet_model.types import NS_PER_S

_PERIODS_NS = {"minute": 60 * NS_PER_S, "hour": 3600 * NS_PER_S, "day": 86_400 * NS_PER_S}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many at most in any minute, hour and day; 0 is no limit."""

    per_minute: int = 0
    per_hour: int = 0
    per_day: int = 0


class LimitedCount:
    """Counts what was allowed in the last minute, hour and day."""

    def __init__(self, limits: Limits) -> None:
        numbers = (limits.per_minute, limits.per_hour, limits.per_day)
        # For each limit the times of the last ones: as many as it allows.
        self._allowed = {
            name: deque[int](maxlen=number)
            for name, number in zip(_PERIODS_NS, numbers, strict=True)
            if number
        }

    def refusal(self, now_ns: int) -> str:
        """Return which limit stands against one more now, as "per hour"; "" if none does."""
        for name, times in self._allowed.items():
            # A clock that was set back must not shut the recorder for as long.
            if len(times) == times.maxlen and 0 <= now_ns - times[0] < _PERIODS_NS[name]:
                return f"per {name}"
        return ""

    def add(self, now_ns: int) -> None:
        """Count one more."""
        for times in self._allowed.values():
            times.append(now_ns)


class RateSelection:
    """Chooses frames such that `rate_hz` of them remain of each second; 0 chooses none."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._origin_ns = self._last_ns = 0
        self._slot = -1

    def chooses(self, moment_ns: int) -> bool:
        """Return whether this frame is wanted; asked of each frame once, in their order.

        Every period of the wanted rate has one frame: that whose beginning is nearer to it than to
        the next one's. A 30 Hz camera jitters, and keeps all its frames at 30 Hz.
        """
        if self._rate_hz <= 0:
            return False
        step = (moment_ns - self._last_ns) / NS_PER_S * self._rate_hz
        periods = (moment_ns - self._origin_ns) / NS_PER_S * self._rate_hz
        slot = math.floor(periods + min(max(step, 0.0), 1.0) / 2)
        self._last_ns = moment_ns
        if self._slot < 0 or slot < self._slot - 1:  # the first, or the clock was set back
            self._origin_ns, self._slot = moment_ns, 0
            return True
        chosen = slot > self._slot
        self._slot = max(slot, self._slot)
        return chosen
