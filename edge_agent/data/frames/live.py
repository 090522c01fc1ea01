"""What a live source needs beside its listener: a short queue to the reader, an end by signal."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from edge_agent.data.frames.source import LIVE_PREFIX, FrameEntry, FrameSource
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Frame


class _Arrived(NamedTuple):
    entry: FrameEntry
    losses: Mapping[str, int]  # totals until then, by kind


class _Ended(NamedTuple):
    error: FrameError | None
    losses: Mapping[str, int]


class LiveQueue:
    """Frames on their way from the listening thread to the reader: the newest few.

    A reader that is slower than the camera gets the newest pictures, and every one that it missed
    is counted.
    """

    def __init__(self, where: str, size: int) -> None:
        """Make an empty queue for `size` frames; `where` names their source in damage."""
        self._where = where
        self._size = size
        self._losses: dict[str, int] = {}  # replaced, never changed: the queue holds earlier ones
        # SimpleQueue, as a signal handler may run while the main thread waits in it
        self._items: SimpleQueue[_Arrived | _Ended] = SimpleQueue()

    def put(self, time_ns: int, load: Callable[[], Frame]) -> None:
        """Add a frame; where the queue is full, the oldest one goes. Listening thread only."""
        if self._items.qsize() >= self._size:
            try:
                self._items.get_nowait()
            except Empty:  # the reader was faster
                pass
            else:
                self.lost("queue full")
        self._items.put(_Arrived(FrameEntry(time_ns, load), self._losses))

    def lost(self, kind: str, count: int = 1) -> None:
        """Count frames that do not arrive. Listening thread only."""
        self._losses = {**self._losses, kind: self._losses.get(kind, 0) + count}

    def end(self, error: FrameError | None) -> None:
        """Say that nothing more comes, and whether something failed."""
        self._items.put(_Ended(error, self._losses))

    def entries(self, damage: DamageLog) -> Iterator[FrameEntry]:
        """Yield what was put until the end; losses go to `damage`. Raises the end's error."""
        before: Mapping[str, int] = {}
        while True:
            item = self._items.get()
            at = str(item.entry.time_ns) if isinstance(item, _Arrived) else "the end"
            for kind, total in item.losses.items():
                if count := total - before.get(kind, 0):
                    damage.add(kind, f"{self._where} before {at}", count)
            before = item.losses
            if isinstance(item, _Ended):
                if item.error:
                    raise item.error
                return
            yield item.entry


def open_live(path: Path, topic: str) -> FrameSource:
    """Return the live source that `path` names; raises SettingsError if `topic` is another one."""
    if path.as_posix().startswith(LIVE_PREFIX):
        from edge_agent.data.frames.ros_topic import open_topic

        return open_topic(path, topic)
    from edge_agent.data.frames.video.camera import CameraFrames

    return CameraFrames(path)


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
