"""What a live source needs beside its listener: a short queue to the reader, an end by signal."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.frames.message import frame_of
from edge_agent.data.frames.source import FrameEntry
from edge_agent.data.storage import Topic
from fleet_model.errors import FrameError

SOURCE = "ros"  # Frame.source of live frames, where a bag has its name


class _Losses(NamedTuple):
    """Totals since the beginning."""

    queue_full: int = 0
    in_transport: int = 0


class _Arrived(NamedTuple):
    time_ns: int
    topic: Topic
    message: bytes
    losses: _Losses  # until then


class _Ended(NamedTuple):
    error: FrameError | None
    losses: _Losses


class LiveQueue:
    """Messages on their way from the listening thread to the reader: the newest few.

    A reader that is slower than the camera gets the newest pictures, and every one that it missed
    is counted.
    """

    def __init__(self, topic: str, size: int) -> None:
        """Make an empty queue for `size` messages of `topic`."""
        self._topic = topic
        self._size = size
        self._losses = _Losses()
        # SimpleQueue, as a signal handler may run while the main thread waits in it
        self._items: SimpleQueue[_Arrived | _Ended] = SimpleQueue()

    def put(self, time_ns: int, topic: Topic, message: bytes) -> None:
        """Add a message; where the queue is full, the oldest one goes. Listening thread only."""
        if self._items.qsize() >= self._size:
            try:
                self._items.get_nowait()
            except Empty:  # the reader was faster
                pass
            else:
                self._losses = self._losses._replace(queue_full=self._losses.queue_full + 1)
        self._items.put(_Arrived(time_ns, topic, message, self._losses))

    def lost(self, count: int) -> None:
        """Count messages that the middleware could not deliver. Listening thread only."""
        in_transport = self._losses.in_transport + count
        self._losses = self._losses._replace(in_transport=in_transport)

    def end(self, error: FrameError | None) -> None:
        """Say that nothing more comes, and whether something failed."""
        self._items.put(_Ended(error, self._losses))

    def entries(self, damage: DamageLog) -> Iterator[FrameEntry]:
        """Yield what was put until the end; losses go to `damage`. Raises the end's error."""
        before = _Losses()
        while True:
            item = self._items.get()
            at = str(item.time_ns) if isinstance(item, _Arrived) else "the end"
            position = f"{SOURCE}{self._topic} before {at}"
            if count := item.losses.queue_full - before.queue_full:
                damage.add("queue full", position, count)
            if count := item.losses.in_transport - before.in_transport:
                damage.add("lost in transport", position, count)
            before = item.losses
            if isinstance(item, _Ended):
                if item.error:
                    raise item.error
                return
            yield FrameEntry(
                item.time_ns, partial(frame_of, item.message, item.topic, SOURCE, item.time_ns)
            )


@contextmanager
def ending_at_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM call `stop` and the next one do what it did before.

    Only in the main thread; elsewhere nothing is changed.
    """
    before: dict[int, Any] = {}

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def on_signal(*_: object) -> None:
        restore()
        stop()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not None:  # None: set by C code, cannot be restored
                before[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            restore()
