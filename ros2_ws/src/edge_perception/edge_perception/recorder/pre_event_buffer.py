"""The last seconds of frames and labels, in bounded memory, for the case that something happens."""

from collections import OrderedDict

from edge_perception.recorder.message import Message
from edge_perception.recorder.windows import Windows


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
