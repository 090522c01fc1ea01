"""Keep the chunks that were unpacked last: messages of those that overlap are read in turns."""

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

_KEPT_BYTES = 16 << 20  # recorders close a chunk at 1 to 4 MB
_SMALLEST = 1 << 16  # bytes that an entry counts as, so that there are never many
_KEPT_ALWAYS = 2  # of any size: readers that load ahead with threads look back by one

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """Values that are costly to make, those that were asked for last. Safe in threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._values: dict[Key, tuple[Value, int]] = {}  # with their bytes, oldest first
        self._bytes = 0

    def get(self, key: Key, make: Callable[[Key], tuple[Value, int]]) -> Value:
        """Return the value of `key`; where it is not kept, what `make` returns with its size."""
        with self._lock:
            if key not in self._values:
                value, size = make(key)
                self._values[key] = value, max(size, _SMALLEST)
                self._bytes += self._values[key][1]
            value, _ = self._values[key] = self._values.pop(key)  # the last one that was used
            while self._bytes > _KEPT_BYTES and len(self._values) > _KEPT_ALWAYS:
                self._bytes -= self._values.pop(next(iter(self._values)))[1]
            return value

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._values.clear()
            self._bytes = 0
