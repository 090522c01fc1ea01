"""Whose request is next: one thread for the model, one turn after the other for every client.

A client that asks a hundred times at once waits for itself: between two of its requests everybody
else has a turn.

Where nobody waits and the model is quick, a job is done in the event loop itself: to hand it over
and back would take as long as the job (0.1 ms).
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from edge_agent.serving.request import RequestError

# What the event loop does by itself: so long did the job before it take, so large is its request.
QUICK_S, QUICK_BYTES = 1e-3, 128 << 10
log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class Turns:
    """A thread that works, and the jobs that wait for it. Use `run` from one event loop."""

    def __init__(self, max_waiting: int, max_bytes: int) -> None:
        """Start the thread.

        Args:
            max_waiting: jobs at most; one client may have half of them.
            max_bytes: of all that wait together.
        """
        self._max_waiting, self._max_bytes = max_waiting, max_bytes
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Hashable, deque[_Job]] = OrderedDict()
        self._count = self._bytes = 0
        self._ended = self._is_busy = False
        self._last_s = QUICK_S  # that the last job took
        self._thread = threading.Thread(target=self._work, name="serving-model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Return how many jobs wait."""
        return self._count

    async def run(self, client: Hashable, size: int, job: Callable[[], Answer]) -> Answer:
        """Return what `job` returns, and raise what it raises; no two jobs run at once.

        Args:
            client: who asks, e.g. a connection.
            size: bytes that it holds while it waits.
            job: does the work.

        Raises:
            RequestError: too much waits already; ask again later.
        """
        with self._changed:
            self._require_room(client, size)
            at_once = self._may_be_done_at_once(size)
            if at_once:
                self._is_busy = True
            else:
                future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
                self._waiting.setdefault(client, deque()).append(_Job(future, job, size))
                self._count += 1
                self._bytes += size
                self._changed.notify()
        if not at_once:
            return await future
        try:
            return self._done(job)
        finally:
            self._is_busy = False

    def close(self, patience_s: float) -> None:
        """Take no more; what waits is still done, if that takes no longer than `patience_s`."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(patience_s)

    def _require_room(self, client: Hashable, size: int) -> None:
        if self._ended:
            raise RequestError("not ready", "the server is ending")
        own = len(self._waiting.get(client, ()))
        if own >= max(1, self._max_waiting // 2):
            raise RequestError("full", f"{own} requests of this connection wait already")
        if self._count >= self._max_waiting or self._bytes + size > self._max_bytes:
            raise RequestError("full", f"{self._count} requests wait already; ask again later")

    def _may_be_done_at_once(self, size: int) -> bool:
        quick = self._last_s < QUICK_S and size <= QUICK_BYTES
        return quick and not (self._is_busy or self._waiting)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if not self._waiting:
                    return
                job = self._next()
                self._is_busy = True
            job.do(self._done)
            del job  # its bytes are not kept until the next one comes

    def _next(self) -> "_Job":
        client, queue = self._waiting.popitem(last=False)
        job = queue.popleft()
        if queue:
            self._waiting[client] = queue  # behind everybody else
        self._count -= 1
        self._bytes -= job.size
        return job

    def _done(self, job: Callable[[], Answer]) -> Answer:
        """Return what a job returns; whatever it raises becomes a RequestError."""
        begin = time.perf_counter()
        try:
            answer = job()
        except RequestError:
            raise
        except Exception as error:  # a workload's own code: the next one may do
            log.warning("a request has failed at the model", exc_info=True)
            raise RequestError("failed", f"the model failed: {type(error).__name__}") from None
        self._last_s = time.perf_counter() - begin
        return answer


class _Job:
    def __init__(self, future: "asyncio.Future[Any]", job: Callable[[], Any], size: int) -> None:
        self._future, self._job, self.size = future, job, size

    def do(self, done: Callable[[Callable[[], Any]], Any]) -> None:
        if self._future.cancelled():  # who asked has gone
            return
        try:
            tell = partial(self._future.set_result, done(self._job))
        except RequestError as error:
            tell = partial(self._future.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._future.get_loop().call_soon_threadsafe(self._tell, tell)

    def _tell(self, tell: Callable[[], None]) -> None:
        if not self._future.done():
            tell()
