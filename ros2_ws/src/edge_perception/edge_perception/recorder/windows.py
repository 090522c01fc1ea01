"""Spans of time out of which everything is kept."""

from bisect import bisect_right, insort


class Windows:
    """A few spans of ns, both ends included; those that touch become one."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []  # sorted, apart from each other

    def add(self, start_ns: int, end_ns: int) -> None:
        """Keep what happens in this span as well."""
        touching = [s for s in self._spans if s[0] <= end_ns and start_ns <= s[1]]
        for span in touching:
            self._spans.remove(span)
        ends = [(start_ns, end_ns), *touching]
        insort(self._spans, (min(s for s, _ in ends), max(e for _, e in ends)))

    def cover(self, moment_ns: int) -> bool:
        """Return whether a moment is in one of them."""
        at = bisect_right(self._spans, moment_ns, key=lambda span: span[0])
        return at > 0 and moment_ns <= self._spans[at - 1][1]

    def forget_before(self, moment_ns: int) -> None:
        """Drop the spans that have ended before this moment."""
        while self._spans and self._spans[0][1] < moment_ns:
            self._spans.pop(0)

    def __bool__(self) -> bool:
        return bool(self._spans)
