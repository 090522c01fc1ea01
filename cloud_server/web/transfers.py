"""Bodies of megabytes: on disk while a robot sends or reads them, in memory a few at a time.

Flower holds a tensor several times over while it stores or sends it. So many robots at once would
take so much memory, the more the slower their links are. Here a body that arrives is spooled to an
unnamed file first, then waits its turn; an answer leaves memory the same way. No robot's link
decides for how long a turn takes.

What a request leaves behind are cycles with the body in them, which Python would collect many
requests later: those of large bodies are collected with each.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from fleet_model.memory import give_back

LARGE_BYTES = 64 << 10  # shorter ones stay in memory
PIECE_BYTES = 128 << 10  # written to a connection at once
# Flower's SQLite has one writer: more are hardly faster.
AT_ONCE = 2
SLOWEST_BYTES_PER_S = 1000.0
LOOK_S = 0.02  # while the server has its hands full

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class SlowPeerError(Exception):
    """The peer sends or reads too slowly, or has gone; the connection is to be cut."""


class BodySpool:
    """Bytes in memory up to LARGE_BYTES, then in a file without a name: a kill leaves nothing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0

    def __enter__(self) -> "BodySpool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    async def write(self, piece: bytes) -> None:
        """Append; raises OSError if the disk is full."""
        self._memory += piece
        self.size += len(piece)
        if len(self._memory) > LARGE_BYTES:
            content, self._memory = self._memory, bytearray()
            await asyncio.to_thread(self._put, content)

    async def read(self) -> bytes:
        """Return everything."""
        return b"".join([piece async for piece in self.pieces(max(1, self.size))])

    async def pieces(self, size: int = PIECE_BYTES) -> AsyncIterator[bytes]:
        """Give everything piece by piece."""
        if self._file is not None:
            self._file.seek(0)
            while piece := await asyncio.to_thread(self._file.read, size):
                yield piece
        if self._memory:
            yield bytes(self._memory)

    def _put(self, content: bytearray) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]


async def receive_whole(receive: Receive, spool: BodySpool, slow_s: float) -> None:
    """Read a request's body into the spool.

    Raises:
        SlowPeerError: it was slower than SLOWEST_BYTES_PER_S, or the peer has gone.
    """
    waited_s, more = 0.0, True
    while more:
        patience_s = slow_s + spool.size / SLOWEST_BYTES_PER_S - waited_s
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, patience_s)):
                message = await receive()
        except TimeoutError:
            raise SlowPeerError from None
        waited_s += time.monotonic() - began
        if message["type"] != "http.request":
            raise SlowPeerError
        await spool.write(message.get("body", b""))
        more = message.get("more_body", False)


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body in one piece, then what the connection says."""
    left = [body]
    del body

    async def again() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return again


def patient(send: Send, slow_s: float) -> Send:
    """Return a `send` that raises SlowPeerError when the peer reads too slowly.

    Long bodies go out in pieces: a server that is given a whole one keeps it until it is read.
    """

    async def bounded(message: Message) -> None:
        body = memoryview(message.get("body", b""))
        while len(body) > PIECE_BYTES:
            await in_time({**message, "body": bytes(body[:PIECE_BYTES]), "more_body": True})
            body = body[PIECE_BYTES:]
        await in_time({**message, "body": bytes(body)} if body else message)

    async def in_time(message: Message) -> None:
        try:
            async with asyncio.timeout(slow_s + PIECE_BYTES / SLOWEST_BYTES_PER_S):
                await send(message)
        except TimeoutError:
            raise SlowPeerError from None

    return bounded


class Turns:
    """Lets AT_ONCE requests through at a time, in the order they came; answers leave spooled."""

    def __init__(
        self, directory: Path, busy: Callable[[], bool] = lambda: False, at_once: int = AT_ONCE
    ) -> None:
        """No turn begins while the server is `busy` with what takes as much memory."""
        self._directory = directory
        self._busy = busy
        self._turns = asyncio.Semaphore(at_once)

    async def run(
        self, app: Any, scope: Message, body: BodySpool, receive: Receive, send: Send
    ) -> None:
        """Call the app with the whole body; send its answer when the turn is over."""
        start: list[Message] = []
        with BodySpool(self._directory) as answer:

            async def keep(message: Message) -> None:
                if message["type"] == "http.response.start":
                    start.append(message)
                else:
                    await answer.write(message.get("body", b""))

            async with self._turns:
                while self._busy():
                    await asyncio.sleep(LOOK_S)
                await app(scope, replay(await body.read(), receive), keep)
                if max(body.size, answer.size) > LARGE_BYTES:
                    give_back()
            for message in start:
                await send(message)
            left = answer.size
            if start and not left:
                await send({"type": "http.response.body", "body": b""})
            async for piece in answer.pieces():
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
