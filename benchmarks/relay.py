"""Pass TCP connections on and count what travels: from outside, so that both sides count alike."""

import socket
import socketserver
import threading
from contextlib import suppress
from select import select


class Relay(socketserver.ThreadingTCPServer):
    """Listens on a free port of this machine, for a service on another one, until the block ends.

    `bytes` travelled, both ways, with what TLS adds. `turns` is how often a client began to speak:
    once a request on a connection that stays, twice on a new one with TLS.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        """Begin to listen."""
        super().__init__(("127.0.0.1", 0), _Passing)
        self.target, self.bytes, self.turns = port, 0, 0
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def count(self, size: int, *, turn: bool) -> None:
        """Count what one end has said."""
        with self._lock:
            self.bytes += size
            self.turns += turn

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self.shutdown()
        self.server_close()


class _Passing(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        """Pass on until either end closes."""
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.server.target)) as service,
        ):
            client, speaker = self.request, service
            while True:
                for source in select((client, service), (), ())[0]:
                    block = source.recv(65536)
                    if not block:
                        return
                    self.server.count(len(block), turn=source is client is not speaker)
                    speaker = source
                    (service if source is client else client).sendall(block)
