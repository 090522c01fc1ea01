"""How much memory the agent and its children use: summed PSS, peak kept."""

import threading

import psutil

IDLE_S, BUSY_S = 2.0, 0.25  # a look costs about 3 ms for 100 MB


def tree_pss_mb() -> float:
    """Return the proportional set size of this process and its children, in MB (1e6 bytes).

    PSS counts a page that n processes share as 1/n, so the sum over a tree is what it costs.
    """
    me = psutil.Process()
    total = 0
    for process in (me, *me.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # a child that has just ended
    return total / 1e6


class MemoryWatch:
    """Samples the tree from `start` to `close`: seldom while idle, often while `busy` is set."""

    def __init__(self) -> None:
        self.idle_mb = self.peak_mb = 0.0
        self._busy, self._wake, self._end = (threading.Event() for _ in range(3))
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to sample, in a thread of its own."""
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; what was measured stays."""
        self._end.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def busy(self, value: bool) -> None:
        """Say whether a training process is at work."""
        if value:
            self._busy.set()
        else:
            self._busy.clear()
        self._wake.set()

    def look(self, *, idle: bool) -> None:
        """Sample once; `idle` says that nothing but the agent itself runs."""
        now = tree_pss_mb()
        self.peak_mb = max(self.peak_mb, now)
        if idle:
            # The most that idling ever took: the first look is before Flower is loaded.
            self.idle_mb = max(self.idle_mb, now)

    def _watch(self) -> None:
        while not self._end.is_set():
            self.look(idle=not self._busy.is_set() and not psutil.Process().children())
            self._wake.wait(BUSY_S if self._busy.is_set() else IDLE_S)
            self._wake.clear()
