"""Ports for servers that tests start: nobody else takes one between the choice and the bind."""

import fcntl
import os
import socket
import tempfile
from pathlib import Path

_FIRST, _LAST = 15_000, 32_000
_held = []  # locks of the ports that this process has chosen: they end with it


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free, and stays so for this test process.

    The kernel gives the ports of its ephemeral range to whatever connects somewhere, so a port that
    it proposes may be taken a moment later. These lie below that range (32768 in Linux), and a lock
    file for each keeps other test processes of this machine away.
    """
    folder = Path(tempfile.gettempdir()) / f"fleetlearn-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    count = _LAST - _FIRST
    for step in range(count):
        port = _FIRST + (os.getpid() * 101 + step) % count
        lock = (folder / str(port)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:  # another test process has it, or a program that is no test
            lock.close()
            continue
        _held.append(lock)
        return port
    raise OSError(f"no port from {_FIRST} to {_LAST} is free")
