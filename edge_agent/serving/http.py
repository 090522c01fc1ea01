"""Serve an ASGI application over HTTP, on a socket that only this machine reaches."""

import asyncio
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uvicorn

HOSTS = ("127.0.0.1", "localhost", "[::1]", "::1")
GRACE_S = 5.0  # for requests that wait when the end comes


async def start_http(
    app: Any, listener: socket.socket, slow_s: float
) -> "tuple[uvicorn.Server, asyncio.Task[None]]":
    """Start serving; set `should_exit` of the server and await the task to end it.

    Args:
        app: an ASGI application. The scope of its requests has CONNECTION and ABORT.
        listener: a bound socket.
        slow_s: seconds that a request may take to arrive.
    """
    import uvicorn

    from edge_agent.serving.connection import PatientProtocol

    config = uvicorn.Config(
        app,
        http=type("_Protocol", (PatientProtocol,), {"slow_s": slow_s}),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=int(GRACE_S),
    )
    server = _server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.005)
    return server, task


def names_this_machine(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a request was sent to this machine by one of its own names.

    A web page of a stranger, shown on this machine, can only send it by a name of its own.
    """
    host = headers.get(b"host", b"127.0.0.1").decode("latin-1")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name.lower() in HOSTS


def _server(config: "uvicorn.Config") -> "uvicorn.Server":
    """Return uvicorn's server without its signal handlers: its owner ends it."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(config)
