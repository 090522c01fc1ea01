"""The last seconds of frames and labels, and the spans of time out of which all are kept."""

from bisect import bisect_right, insort
from collections import OrderedDict

from edge_perception.recorder.message import Message


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


class PreEventBuffer:
    """A ring of messages in the order of their arrival."""

    def __init__(self, hold_ns: int) -> None:
        """Hold each message for `hold_ns` after its arrival."""
        self._hold_ns = hold_ns
        self._held: OrderedDict[int, Message] = OrderedDict()
        self.size_bytes = self.frames = 0
        self.let_go_ns = 0  # the moment of the last frame that nobody has taken

    def add(self, message: Message) -> None:
        """Hold a message, and let go of those that are too old."""
        self._held[id(message)] = message
        self.size_bytes += message.size_bytes
        self.frames += message.is_frame
        self.expire(message.arrived_ns)

    def expire(self, now_ns: int) -> None:
        """Let go of what is too old. After a clock was set back, of what is of the future."""
        while oldest := self.oldest():
            if 0 <= now_ns - oldest.arrived_ns <= self._hold_ns:
                return
            self._let_go(oldest)

    def remove(self, message: Message) -> None:
        """Let go of this message, if it is held."""
        if self._held.pop(id(message), None) is not None:
            self.size_bytes -= message.size_bytes
            self.frames -= message.is_frame

    def remove_oldest(self) -> Message | None:
        """Let go of the oldest message; return it, or None if nothing is held."""
        oldest = self.oldest()
        if oldest is not None:
            self._let_go(oldest)
        return oldest

    def take(self, windows: Windows, *, frames: bool) -> list[Message]:
        """Remove and return the frames, or the labels, of the windows, oldest first."""
        taken = [
            m for m in self._held.values() if m.is_frame == frames and windows.cover(m.moment_ns)
        ]
        for message in taken:
            self.remove(message)
        return taken

    def oldest(self) -> Message | None:
        """Return the oldest message that is held; None if there is none."""
        return next(iter(self._held.values()), None)

    def _let_go(self, message: Message) -> None:
        self.remove(message)
        if message.is_frame:
            self.let_go_ns = message.moment_ns
