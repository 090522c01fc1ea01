"""A thread that works on the newest item: a later one takes the place of one that waits."""

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
log = logging.getLogger(__name__)


class QueueOfOne(Generic[Item]):
    """One worker with a queue of one."""

    def __init__(self, work: Callable[[Item], None], name: str) -> None:
        """Begin; `work` is called in the worker's thread, one item at a time."""
        self.dropped = 0  # items that a later one has replaced
        self.failed = 0  # items of which `work` raised
        self._work = work
        self._waiting: list[Item] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over an item; never blocks for long."""
        with self._changed:
            self.dropped += len(self._waiting)
            self._waiting = [item]
            self._changed.notify()

    def close(self) -> None:
        """End the thread once it has worked on what was handed over."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                item = self._waiting.pop()
            try:
                self._work(item)
            except Exception:
                self.failed += 1
                if self.failed == 1:  # the first of a kind that may come thirty times a second
                    log.exception("an image could not be worked on")
