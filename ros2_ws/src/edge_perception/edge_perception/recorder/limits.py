"""Say when it is enough: by rate, and per minute, hour and day."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.data.extraction.selection import Selection, reason_to_skip
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


def at_rate(rate_hz: float) -> Callable[[int], bool]:
    """Return what says of each frame's moment, in ns and in their order, whether it is chosen.

    So many of each second are, as `edge-agent extract --rate-hz` would choose them; 0 chooses none.
    """
    if rate_hz <= 0:
        return lambda moment_ns: False
    reason = reason_to_skip(Selection(rate_hz=rate_hz))
    return lambda moment_ns: not reason(moment_ns)
