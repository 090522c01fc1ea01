"""HTTP as uvicorn speaks it, with bounds on what a peer may send before anybody knows who it is.

uvicorn bounds neither the size of a head, nor the time it takes, nor the requests that are sent
before the first one is answered (pipelining, which none of our clients does).
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cloud_server.state.settings import LimitSettings

MAX_HEAD_BYTES = 16 << 10  # the longest of ours is a look with a report, about 4 kB
CUT = "fleetlearn.cut"  # in the scope: ends the connection at once


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `limits` is set on a subclass: uvicorn makes the instances."""

    limits = LimitSettings()

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = False  # its first byte is here, its last is not

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        super().connection_made(transport)  # type: ignore[arg-type]
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._head_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._waits_for_head():
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or not self._waits_for_head():
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()
        else:
            self._await_head()

    def on_message_begin(self) -> None:  # noqa: D102
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if len(name) + len(value) > MAX_HEAD_BYTES or len(self.headers) > 100:
            raise ValueError("head too long")  # the parser hands it on: answered 400, closed
        super().on_header(name, value)

    def on_headers_complete(self) -> None:  # noqa: D102
        if self.pipeline:  # one may wait: clients see the end of an answer before uvicorn does
            raise ValueError("more requests before the first was answered")
        if len(self.url) > MAX_HEAD_BYTES:
            raise ValueError("head too long")
        self._in_head = False
        self._head_arrived()
        super().on_headers_complete()
        self.scope[CUT] = self.transport.abort  # type: ignore[literal-required]

    def _waits_for_head(self) -> bool:
        return self._in_head or self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        """Start the clock; further bytes of the same head do not start it anew."""
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.slow_s, self.transport.abort)

    def _head_arrived(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
