"""The listening sockets: so many connections in all and of one address, TLS in bounded time.

Counted where connections are accepted, before the first byte of TLS: who opens connections and
says nothing holds as few of them as anybody else.
"""

import asyncio
import asyncio.sslproto
import socket
from collections import Counter
from typing import Any

from cloud_server.state.settings import LimitSettings
from cloud_server.web.buckets import address_key
from fleet_model.errors import SettingsError

HANDSHAKE_S = 10.0  # for the whole TLS handshake; robots on a 2G link need about 3 s
GOODBYE_S = 10.0  # for the last bytes of an answer and the peer's "close notify"
# The operator's commands come from this machine: strangers who use up max_connections must not lock
# them out. "::/64" is where ::1 is.
OPERATORS = ("127.0.0.1", "::/64")
# A connection: as much as one record of TLS holds. asyncio takes 256 kB and writes zeros to all of
# them, which are most of what an idle robot costs.
TLS_BUFFER_BYTES = 16 << 10
MAX_REFUSED_AT_ONCE = 100  # then the event loop does something else first


class BoundedLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop with bounds on TLS; uvicorn has no setting for them.

    Not uvloop, which accepts connections inside libuv, where nobody can count them.
    """

    async def create_server(self, *args: Any, **more: Any) -> asyncio.Server:
        """Listen as the loop does, with less patience."""
        if more.get("ssl") is not None:
            more.setdefault("ssl_handshake_timeout", HANDSHAKE_S)
            more.setdefault("ssl_shutdown_timeout", GOODBYE_S)
            asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
        return await super().create_server(*args, **more)


class ConnectionCount:
    """Counts the open connections of all listening sockets."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """Return how many connections there are."""
        return self._open.total()

    def enter(self, key: str) -> bool:
        """Count one more, or return False if that is too many."""
        full = self.open >= self._limits.max_connections and key not in OPERATORS
        if full or self._open[key] >= self._limits.max_connections_per_address:
            if not self._open[key]:
                del self._open[key]  # reading has made an entry
            return False
        self._open[key] += 1
        return True

    def leave(self, key: str) -> None:
        """Count one less."""
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]


class _Connection(socket.socket):
    """An accepted connection that is counted until its descriptor is closed."""

    _connections: ConnectionCount | None = None
    _key = ""

    def counted(self, connections: ConnectionCount, key: str) -> None:
        self._connections, self._key = connections, key

    def close(self) -> None:
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.leave(self._key)
        super().close()

    def __del__(self) -> None:
        self.close()  # asyncio drops a connection that it cannot serve


class _Listener(socket.socket):
    """Accepts connections while there is room; the others are closed at once."""

    connections: ConnectionCount

    def accept(self) -> tuple[socket.socket, Any]:
        for _ in range(MAX_REFUSED_AT_ONCE):
            accepted, address = super().accept()  # BlockingIOError: nobody waits
            connection = _Connection(fileno=accepted.detach())
            key = address_key(str(address[0]))
            if self.connections.enter(key):
                connection.counted(self.connections, key)
                return connection, address
            connection.close()
        raise BlockingIOError


def listen(host: str, port: int, limits: LimitSettings) -> list[socket.socket]:
    """Bind every address of `host`; they share one count.

    Raises:
        SettingsError: the port is taken or the host is not of this machine.
    """
    connections = ConnectionCount(limits)
    listeners: list[_Listener] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            listener = _Listener(family, socket.SOCK_STREAM)
            listener.connections = connections
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:  # an IPv4 address of the same name is bound by itself
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
    except OSError as error:
        for opened in listeners:
            opened.close()
        raise SettingsError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another network.port or "
            "network.host"
        ) from None
    return list[socket.socket](listeners)
