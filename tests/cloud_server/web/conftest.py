"""A real port with every limit in force, over TLS, before a small app."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import pytest
from free_ports import free_port

from cloud_server.state.certificates import make_secrets
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import LimitSettings, NetworkSettings

PATIENCE_S = 240.0
TOKEN = "t0ken"


@dataclass
class SmallApp:
    """Answers 200 with what it was sent; /fleetlearn/v1/robot/refuse 403, .../big `size` bytes."""

    size: int = 0
    inside: int = 0
    most_inside: int = 0
    bodies: list[bytes] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while (message := await receive())["type"]:
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        message = await receive()
        assert not message["more_body"]
        self.bodies.append(message["body"])
        if scope["path"].endswith("object"):
            while not self.hold.is_set():
                await asyncio.sleep(0.01)
        status = 403 if scope["path"].endswith("refuse") else 200
        body = bytes(self.size) if scope["path"].endswith("big") else b"ok"
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.inside -= 1


@dataclass
class Port:
    """A server that listens; speak to it with raw bytes."""

    number: int
    app: SmallApp
    context: ssl.SSLContext
    server: object
    stack: ExitStack

    def tcp(self, source: str = "127.0.0.1") -> socket.socket:
        raw = socket.create_connection(
            ("127.0.0.1", self.number), timeout=PATIENCE_S, source_address=(source, 0)
        )
        return self.stack.enter_context(raw)

    def tls(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        tls = self.context.wrap_socket(self.tcp(source), server_hostname="127.0.0.1")
        return self.stack.enter_context(tls)

    def ask(self, path: str, *headers: str, method: str = "GET", source: str = "127.0.0.1") -> str:
        """Return the whole answer of one request on a connection of its own."""
        connection = self.tls(source)
        connection.sendall(request(path, *headers, "connection: close", method=method))
        return rest(connection).decode()

    def status(self, path: str, *headers: str, **more: str) -> int:
        return int(self.ask(path, *headers, **more).split()[1])


def request(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "host: x", *headers, "", "")).encode()


def rest(connection: socket.socket) -> bytes:
    """Return everything until the server ends the connection, by whatever way."""
    received = bytearray()
    try:
        while piece := connection.recv(1 << 16):
            received += piece
    except (ConnectionError, ssl.SSLError):
        pass
    return bytes(received)


def read_answer(connection: socket.socket, length: int = 2) -> bytes:
    """Return a head and `length` bytes of body; the connection stays."""
    received = b""
    while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < length:
        piece = connection.recv(1 << 16)
        assert piece, received
        received += piece
    return received


@pytest.fixture(scope="session")
def keys_server_dir(tmp_path_factory: pytest.TempPathFactory) -> ServerDirectory:
    server_dir = ServerDirectory(tmp_path_factory.mktemp("port"))
    make_secrets(server_dir, ("127.0.0.1",), datetime.now(timezone.utc))
    return server_dir


@pytest.fixture
def open_port(keys_server_dir: ServerDirectory, tmp_path: Path) -> Iterator[Callable[..., Port]]:
    """Return a function that serves a SmallApp with [limits] of its own."""
    with ExitStack() as servers:
        yield lambda **limits: servers.enter_context(
            serving(keys_server_dir, tmp_path, LimitSettings.model_construct(**limits))
        )


@contextmanager
def serving(server_dir: ServerDirectory, spool: Path, limits: LimitSettings) -> Iterator[Port]:
    from cloud_server.robots.register import Register
    from cloud_server.web.fleet_keys import FleetKeys
    from cloud_server.web.guard import Bounds, Guard

    app, keys = SmallApp(), FleetKeys(Register(spool / "robots.json"))
    guarded = Guard(app, TOKEN, Bounds(limits=limits, keys=keys, spool=spool))
    with listening(guarded, server_dir, limits) as (number, server), ExitStack() as stack:
        context = ssl.create_default_context(cafile=str(server_dir.certificates / "ca.crt"))
        stack.callback(app.hold.set)
        yield Port(number, app, context, server, stack)


@contextmanager
def listening(
    app: object, server_dir: ServerDirectory, limits: LimitSettings
) -> Iterator[tuple[int, object]]:
    """Serve an app in a thread, over TLS with every limit; give the port and the server."""
    from cloud_server.web.limits import bounded_server

    number = free_port()
    server = bounded_server(
        app,
        NetworkSettings(port=number),
        limits,
        certificate=server_dir.certificates / "server.crt",
        key=server_dir.secrets / "server.key",
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield number, server
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
