"""Whose request is next: one thread for the model, one turn after the other for every client.

A client that asks a hundred times at once waits for itself: between two of its requests everybody
else has a turn.
"""

import asyncio
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from edge_agent.serving.request import RequestError

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
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="serving-model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Return how many jobs wait."""
        return self._count

    async def run(self, client: Hashable, size: int, job: Callable[[], Answer]) -> Answer:
        """Return what `job` returns in the thread, and raise what it raises.

        Args:
            client: who asks, e.g. a connection.
            size: bytes that it holds while it waits.
            job: does the work.

        Raises:
            RequestError: too much waits already; ask again later.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        with self._changed:
            self._require_room(client, size)
            queue = self._waiting.setdefault(client, deque())
            queue.append(_Job(loop, future, job, size))
            self._count += 1
            self._bytes += size
            self._changed.notify()
        return await future

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

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if not self._waiting:
                    return
                job = self._next()
            job.do()
            del job  # its bytes are not kept until the next one comes

    def _next(self) -> "_Job":
        client, queue = self._waiting.popitem(last=False)
        job = queue.popleft()
        if queue:
            self._waiting[client] = queue  # behind everybody else
        self._count -= 1
        self._bytes -= job.size
        return job


class _Job:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        future: "asyncio.Future[Answer]",
        job: Callable[[], Answer],
        size: int,
    ) -> None:
        self._loop, self._future, self._job, self.size = loop, future, job, size

    def do(self) -> None:
        if self._future.cancelled():  # who asked has gone
            return
        try:
            answer = self._job()
        except RequestError as error:
            self._tell(partial(self._future.set_exception, error))
        except Exception as error:  # a workload's own code: the next one may do
            log.warning("a request has failed in the model's thread", exc_info=True)
            wrapped = RequestError("failed", f"the model failed: {type(error).__name__}")
            self._tell(partial(self._future.set_exception, wrapped))
        else:
            self._tell(partial(self._future.set_result, answer))

    def _tell(self, done: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(lambda: None if self._future.done() else done())
