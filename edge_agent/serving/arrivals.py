"""How messages of gRPC arrive: none takes longer than `slow_s`, and few take long at a time.

gRPC waits for a message for ever, and holds what has come of it: 256 calls that each lacked their
last byte took 2.9 GB. What arrives at once is not counted; of the rest as many as REST may hold.
"""

import asyncio
from typing import Any

import grpc

from edge_agent.serving.inference import Bounds
from edge_agent.serving.request import RequestError

QUICK_S = 0.25  # on loopback a message of 16 MB takes 0.05 s


class Arrivals:
    """Reads the one message of each call. Use it from one event loop."""

    def __init__(self, bounds: Bounds) -> None:
        self._most, self._slow_s = bounds.bodies, bounds.slow_s
        self._slow = 0  # calls whose message has not come in QUICK_S

    async def read(self, context: Any) -> bytes:
        """Return the message of a call, b"" if the client sends none.

        Raises:
            RequestError: it has not come in time, or too many arrive slowly.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        refused: list[RequestError] = []
        slow = 0
        timer: asyncio.TimerHandle

        def refuse(error: RequestError) -> None:
            refused.append(error)
            task.cancel()

        def is_slow() -> None:
            nonlocal slow, timer
            if self._slow >= self._most:
                words = "too many requests arrive slowly; ask again later"
                refuse(RequestError("full", words))
                return
            slow = 1
            self._slow += 1
            words = f"no whole message in serve.slow_s = {self._slow_s:g} s"
            left_s = max(self._slow_s - QUICK_S, 0.0)
            timer = loop.call_later(left_s, refuse, RequestError("invalid", words))

        timer = loop.call_later(min(QUICK_S, self._slow_s), is_slow)
        try:
            content = await context.read()
        except asyncio.CancelledError:
            if not refused:
                raise  # the client has gone
            raise refused[0] from None
        finally:
            timer.cancel()
            self._slow -= slow
        return b"" if content is grpc.aio.EOF else bytes(content)
