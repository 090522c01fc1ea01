"""Systemd as far as a service sees it: a socket for its notifications. No unit was ever booted."""

import queue
import socket
import threading
from pathlib import Path

PATIENCE_S = 240.0


class ServiceManager:
    """Listens at an address; `environment` is what it would give to a service of Type=notify."""

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0"))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self.environment = {"NOTIFY_SOCKET": address}
        if watchdog_s is not None:
            self.environment["WATCHDOG_USEC"] = str(round(watchdog_s * 1e6))

    def __enter__(self) -> "ServiceManager":
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RD)
        self._reader.join()
        self._socket.close()

    def until(self, line: str) -> list[str]:
        """Return all lines up to one that begins so."""
        lines = [self.lines.get(timeout=PATIENCE_S)]
        while not lines[-1].startswith(line):
            lines.append(self.lines.get(timeout=PATIENCE_S))
        return lines

    def starves(self, seconds: float = 0.5) -> bool:
        """Return whether nothing more comes for so long."""
        try:
            while not self.lines.empty():
                self.lines.get_nowait()
            return not self.lines.get(timeout=seconds)
        except queue.Empty:
            return True

    def _read(self) -> None:
        while datagram := self._socket.recv(4096):
            for line in datagram.decode().splitlines():
                self.lines.put(line)


def journal(path: Path) -> dict[str, str]:
    """Return what systemd tells a service whose stderr, here a file, is the journal."""
    status = path.stat()
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
