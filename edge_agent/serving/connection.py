"""HTTP as uvicorn speaks it, with a clock: a request must arrive whole, or its connection ends.

uvicorn bounds neither the size of a head, nor how long a request takes to arrive, nor the requests
that are sent before the first one is answered.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 16 << 10
ENDING_S = 2.0  # less than uvicorn waits: it cancels what is left, with a traceback each
MAX_CONNECTIONS = 512  # for one more, the one that has been idle for longest ends
# In the scope of a request: who asks, and what ends the connection.
CONNECTION, ABORT = "fleetlearn.connection", "fleetlearn.abort"


class PatientProtocol(HttpToolsProtocol):
    """One connection. `slow_s` is set on a subclass: uvicorn makes the instances."""

    slow_s = 10.0

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._timer: asyncio.TimerHandle | None = None
        self._arrived = 0  # bytes of the head
        self.idle_since = self.loop.time()  # or since a request began to arrive

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        super().connection_made(transport)  # type: ignore[arg-type]
        self._start()
        if len(self.connections) > MAX_CONNECTIONS:
            idle = [
                one
                for one in self.connections
                if isinstance(one, PatientProtocol) and one.is_idle()
            ]
            min(idle, key=lambda one: one.idle_since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self.is_idle():
            self._start()  # the parser says nothing of empty lines before a request
        super().data_received(data)

    def on_message_begin(self) -> None:  # noqa: D102
        if self.pipeline or (self.cycle is not None and not self.cycle.response_complete):
            raise ValueError("more requests before the first was answered")
        self._arrived = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:  # noqa: D102
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:  # noqa: D102
        super().on_headers_complete()
        scope: Any = self.scope
        scope[CONNECTION], scope[ABORT] = id(self), self.transport.abort

    def on_message_complete(self) -> None:  # noqa: D102
        self._stop()
        self.idle_since = self.loop.time()
        super().on_message_complete()

    def shutdown(self) -> None:
        """End with the server; what arrives or leaves has a little time left."""
        super().shutdown()
        if self._timer is not None or self.transport.is_closing():
            self._stop()
            self._timer = self.loop.call_later(ENDING_S, self.transport.abort)

    def is_idle(self) -> bool:
        """Return whether nobody waits for an answer here."""
        return self.cycle is None or self.cycle.response_complete

    def _count(self, more: int) -> None:
        self._arrived += more
        if self._arrived > MAX_HEAD_BYTES:
            raise ValueError("head too long")  # the parser hands it on: answered 400, closed

    def _start(self) -> None:
        """Start the clock; further bytes of the same request do not start it anew."""
        if self._timer is None:
            self._timer = self.loop.call_later(self.slow_s, self.transport.abort)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
