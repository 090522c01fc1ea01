"""A cable between robots and server that a test can pull: bytes wait in it, nobody is told."""

import socket
import threading
from contextlib import suppress


class CutProxy:
    """Forwards TCP connections to a port of this machine; `cut` loses what is sent until `heal`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._whole = threading.Event()
        self._whole.set()
        self._generation = 0
        self._ends: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Lose every byte from now on, as a robot that leaves the radio's reach does."""
        self._whole.clear()

    def heal(self) -> None:
        """Carry new connections again; those from before the cut stay dead."""
        self._generation += 1
        self._whole.set()

    def snap(self) -> None:
        """Close every connection, as a router that restarts does; new ones are carried."""
        for end in list(self._ends):
            _end(end)

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        """Hold the connection while the cable is cut: it neither opens nor fails."""
        self._whole.wait()
        generation = self._generation
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            near.close()
            return
        self._ends |= {near, far}
        for pair in ((near, far), (far, near)):
            threading.Thread(target=self._pump, args=(*pair, generation), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, generation: int) -> None:
        try:
            while data := source.recv(65536):
                if self._whole.is_set() and generation == self._generation:
                    sink.sendall(data)
        except OSError:
            pass
        finally:
            if self._whole.is_set():
                for end in (source, sink):
                    self._ends.discard(end)
                    _end(end)
                    end.close()


def _end(connection: socket.socket) -> None:
    """Say goodbye to the other side; closing alone would not while a thread waits for its bytes."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
