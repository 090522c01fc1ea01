"""Choose frames by time, before anything of them is read."""

import math
import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import NamedTuple

from fleet_model.errors import SettingsError
from fleet_model.types import NS_PER_S

_FRACTION = re.compile(r"(?<=:[0-9]{2})\.([0-9]{1,9})")
_LONGEST_S = 1e9  # from the first frame
_ABSOLUTE_NS = 10**15  # a whole number from here on is a time, not seconds: 31 million years


class TimeLimit(NamedTuple):
    """A point in a recording."""

    ns: int
    absolute: bool  # False: after the first frame

    def after(self, first_ns: int) -> int:
        """Return the time in ns since the Unix epoch, where the recording begins at `first_ns`."""
        return self.ns if self.absolute else first_ns + self.ns


class Selection(NamedTuple):
    """Which frames of a source are wanted. The defaults want all."""

    start: TimeLimit | None = None  # inclusive
    end: TimeLimit | None = None  # exclusive
    every_n: int = 1  # the first of every n frames of the range
    rate_hz: float = 0.0  # at most this many frames per second; 0 is all


class Moments(NamedTuple):
    """Range of one recording in ns, `end_ns` exclusive."""

    start_ns: float
    end_ns: float


def parse_moment(text: str, flag: str) -> TimeLimit | None:
    """Return the moment that a person typed; None for "".

    Args:
        text: seconds from the first frame ("12.5"), a time in ns since the Unix epoch (a whole
            number of at least 16 digits), or an ISO time ("2025-06-01T12:00:00Z"; UTC unless it
            says otherwise).
        flag: names it in errors.

    Raises:
        SettingsError: it is none of these.
    """
    if not text:
        return None
    if text.isdecimal() and int(text) >= _ABSOLUTE_NS:
        return TimeLimit(int(text), absolute=True)
    try:
        seconds = float(text)
    except ValueError:
        return _iso_moment(text, flag)
    if not 0 <= seconds <= _LONGEST_S:
        raise SettingsError(f"{flag} {text}: expected 0 to {_LONGEST_S:g} seconds")
    return TimeLimit(round(seconds * NS_PER_S), absolute=False)


def require_order(selection: Selection) -> None:
    """Raise SettingsError if the range is empty, as far as that is known before the recording."""
    start, end = selection.start, selection.end
    if start and end and start.absolute == end.absolute and end.ns <= start.ns:
        raise SettingsError("--end before --start: the end must be later, for it is not included")


def reason_to_skip(selection: Selection) -> Callable[[int], str]:
    """Return a function that says of each frame's time, in their order, why it is not wanted.

    It answers "" (wanted), "time range" or "rate". One function serves one source: the first time
    it is given is where the recording begins.
    """
    skip = _Skip(selection)
    return skip.reason


class _Skip:
    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._range: Moments | None = None
        self._in_range = 0
        self._origin_ns = 0  # where slot 0 begins
        self._slot = -1
        self._last_ns = 0

    def reason(self, time_ns: int) -> str:
        if self._range is None:
            self._range = _moments(self._selection, time_ns)
        if not self._range.start_ns <= time_ns < self._range.end_ns:
            return "time range"
        self._in_range += 1
        if (self._in_range - 1) % self._selection.every_n:
            return "rate"
        return "" if not self._selection.rate_hz or self._takes_slot(time_ns) else "rate"

    def _takes_slot(self, time_ns: int) -> bool:
        """Give every period of the wanted rate one frame; a clock set back starts again."""
        slot, self._last_ns = self._slot_of(time_ns), time_ns
        if self._slot < 0 or slot < self._slot - 1:
            self._origin_ns, self._slot = time_ns, 0
            return True
        if slot <= self._slot:
            return False
        self._slot = slot
        return True

    def _slot_of(self, time_ns: int) -> int:
        """Return the period whose beginning is nearer to this frame than to the next one.

        The next one is expected after as long as this one came after the last. Without that, a
        30 Hz camera that is thinned to 30 Hz would lose half of its frames, for clocks jitter.
        """
        periods = (time_ns - self._origin_ns) / NS_PER_S * self._selection.rate_hz
        step = (time_ns - self._last_ns) / NS_PER_S * self._selection.rate_hz
        return math.floor(periods + min(max(step, 0.0), 1.0) / 2)


def _moments(selection: Selection, first_ns: int) -> Moments:
    start, end = selection.start, selection.end
    return Moments(
        start.after(first_ns) if start else -math.inf, end.after(first_ns) if end else math.inf
    )


def _iso_moment(text: str, flag: str) -> TimeLimit:
    fraction = _FRACTION.search(text)
    whole = _FRACTION.sub("", text).replace("Z", "+00:00")  # all that Python 3.10 reads
    try:
        time = datetime.fromisoformat(whole)
    except ValueError:
        raise SettingsError(
            f"{flag} {text}: expected seconds from the first frame (12.5), a time in ns, or an ISO "
            "time (2025-06-01T12:00:00Z)"
        ) from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=timezone.utc)
    since = time - datetime.fromtimestamp(0, timezone.utc)
    whole_s = since.days * 86_400 + since.seconds
    ns = int(fraction[1].ljust(9, "0")) if fraction else 0
    return TimeLimit(whole_s * NS_PER_S + ns, absolute=True)
