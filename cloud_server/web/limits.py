"""The server process on its port: every limit of [limits] in force, memory that stays flat."""

import ctypes
import logging
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from cloud_server.state.logs import SeldomLines
from cloud_server.state.settings import LimitSettings, NetworkSettings
from cloud_server.web.listener import listen
from cloud_server.web.protocol import BoundedProtocol
from fleet_model.command_line.systemd import notify, watchdog_s
from fleet_model.errors import SettingsError

log = logging.getLogger(__name__)
# What everybody since 2014 speaks: ephemeral keys, authenticated encryption. TLS 1.3 has no others.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
FILES_BESIDE_CONNECTIONS = 512  # SQLite, spools, the store's files, Python itself
LEAVE_S = 10.0  # less than what service managers allow before they kill
M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3  # of glibc's malloc.h
LARGE_BLOCK_BYTES = 1 << 20
# What strangers can make uvicorn say, once a request; and "Cancel 0 running task(s)" at the end of
# every polling connection, which is no error.
NOISE = ("Invalid HTTP request", "Unsupported upgrade", "No supported WebSocket", "Cancel %s")


class BoundedServer(uvicorn.Server):
    """uvicorn on sockets that count their connections."""

    def __init__(
        self,
        config: uvicorn.Config,
        bind: Callable[[], list[socket.socket]],
        leaving: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._bind, self._leaving = bind, leaving
        self._fed_s = 0.0  # monotonic

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and then say so to systemd."""
        await super().startup(sockets)
        if self.started:
            notify("READY=1")

    async def on_tick(self, counter: int) -> bool:
        """Feed systemd's watchdog ten times a second at most: a loop that hangs does not."""
        due_s, now_s = watchdog_s(), time.monotonic()
        if due_s is not None and now_s - self._fed_s >= due_s:
            self._fed_s = now_s
            notify("WATCHDOG=1")
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down; what still holds on after LEAVE_S is left as by a crash, which loses nothing.

        A request that waits for the database, or for a disk, would otherwise keep the process.
        """
        super().handle_exit(sig, frame)
        notify("STOPPING=1")
        self._leaving()
        leaving = threading.Timer(LEAVE_S, _leave)
        leaving.daemon = True
        leaving.start()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal; raises SettingsError if the port is taken."""
        super().run(sockets=sockets or self._bind())


def _leave() -> None:
    log.warning("still at work %g s after the signal to end: left as it is", LEAVE_S)
    logging.shutdown()
    os._exit(0)


def bounded_server(
    app: Any,
    network: NetworkSettings,
    limits: LimitSettings,
    certificate: Path,
    key: Path,
    leaving: Callable[[], object] = lambda: None,
) -> BoundedServer:
    """Return the server of `app` over TLS; raises SettingsError if it cannot with these files.

    `leaving` is called when its end begins: it lets go of requests that are held.
    """
    _silence_noise()
    raise_file_limit(limits.max_connections)
    keep_memory_flat()
    config = uvicorn.Config(
        app,
        http=type("_Protocol", (BoundedProtocol,), {"limits": limits}),
        loop="cloud_server.web.listener:BoundedLoop",
        ws="none",
        ssl_certfile=certificate,
        ssl_keyfile=str(key),
        ssl_ciphers=CIPHERS,
        ssl_context_factory=strict_tls,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,  # robots poll: they only keep connections open
        timeout_keep_alive=75,  # longer than an idle robot's poll: no new TLS handshake each
    )
    config.load()  # here and not once it serves: nothing has been bound or announced yet
    return BoundedServer(config, lambda: listen(network.host, network.port, limits), leaving)


def keep_memory_flat() -> None:
    """Let all threads share two heaps, and give back every large block, where there is glibc.

    By default every one of Flower's 40 threads keeps what it has once used to itself: megabytes
    each. And after the first tensor that is freed, glibc takes blocks of up to 32 MB from the
    heaps, where they leave holes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    options = ((M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES))
    if mallopt is None or not all(mallopt(option, value) for option, value in options):
        log.debug("this C library has no mallopt")


def raise_file_limit(connections: int) -> int:
    """Raise the soft limit of open files to what the connections need; return how many there are.

    A server without a free descriptor accepts nobody, the operator neither.
    """
    wanted = connections + FILES_BESIDE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = [limit for limit in (wanted, hard) if limit != resource.RLIM_INFINITY]
    if soft == resource.RLIM_INFINITY or soft >= min(room):
        have = soft
    else:
        have = min(room)
        resource.setrlimit(resource.RLIMIT_NOFILE, (have, hard))
    if have != resource.RLIM_INFINITY and have < wanted:
        log.warning(
            "only %d files may be open, limits.max_connections = %d needs %d; raise `ulimit -n`",
            have, connections, wanted,
        )  # fmt: skip
    return have


def strict_tls(config: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Return uvicorn's context without what is old; raises SettingsError for wrong files."""
    try:
        context = default()
    except OSError as error:  # as ssl.SSLError is, which does not say which of the files it means
        files = [str(file) for file in (config.ssl_certfile, config.ssl_keyfile)]
        wrong = [file for file in files if not os.access(file, os.R_OK)] or files
        reason = error.strerror or error
        raise SettingsError(
            f"{', '.join(wrong)}: cannot be used ({reason}); restore from a backup, or let "
            "`cloud-server renew-certificate` make certificate and key anew"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that asks for new keys again and again costs the server far more than itself.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


class _Noise(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(NOISE)


def _silence_noise() -> None:
    logger = logging.getLogger("uvicorn.error")
    if not any(isinstance(one, _Noise) for one in logger.filters):
        logger.addFilter(_Noise())
        logger.addFilter(SeldomLines())  # a traceback for every request that fails
