"""When the next picture of a recording is due, and which pictures of a camera are left out."""

LONGEST_GAP_S = 10.0  # a recorder that paused, or a clock that was set, must not stop the pictures
SLIP_S = 1.0  # later than this, what is missed is not made up for


class Pacer:
    """Spaces pictures as they were recorded, times a speed, or evenly."""

    def __init__(self, speed: float, rate_hz: float) -> None:
        """Begin a recording.

        Args:
            speed: 1 is the pace of the recording, 2 twice as fast; above 0.
            rate_hz: so many pictures a second whatever the recording says; 0: as it says.
        """
        self._speed, self._rate_hz = speed, rate_hz
        self._due_s: float | None = None
        self._last_ns: int | None = None
        self._gap_s = 0.0
        self.shortened = 0  # recorded gaps that were longer than LONGEST_GAP_S
        self.slipped = 0  # times that the pictures were more than SLIP_S late

    def rewind(self) -> None:
        """Begin again; the last picture is followed by the first as by the one before."""
        self._last_ns = None

    def wait_s(self, time_ns: int, now_s: float) -> float:
        """Return in how many seconds the picture is due; 0 if it is late.

        Args:
            time_ns: when it was recorded.
            now_s: of a clock that is never set.
        """
        gap_s = self._next_gap_s(time_ns)
        self._last_ns = time_ns
        if self._due_s is None:
            self._due_s = now_s
            return 0.0
        self._due_s += gap_s
        if now_s - self._due_s > SLIP_S:
            self.slipped += 1
            self._due_s = now_s
        return max(0.0, self._due_s - now_s)

    def _next_gap_s(self, time_ns: int) -> float:
        if self._rate_hz:
            return 1 / self._rate_hz
        if self._last_ns is None or time_ns < self._last_ns:  # the next loop, or the next file
            return self._gap_s
        gap_s = (time_ns - self._last_ns) / 1e9
        if gap_s > LONGEST_GAP_S:
            self.shortened += 1
            gap_s = LONGEST_GAP_S
        self._gap_s = gap_s / self._speed
        return self._gap_s


class RateLimit:
    """Lets at most so many pictures of a camera through."""

    def __init__(self, rate_hz: float) -> None:
        """Keep the limit; 0 is none."""
        self._period_s = 1 / rate_hz if rate_hz else 0.0
        self._next_s = 0.0

    def takes(self, now_s: float) -> bool:
        """Return whether a picture that arrives now is let through.

        A quarter of a period early counts as in time: a camera's clock is not ours.
        """
        if now_s < self._next_s - self._period_s / 4:
            return False
        is_long_ago = now_s - self._next_s > self._period_s
        self._next_s = (now_s if is_long_ago else self._next_s) + self._period_s
        return True
