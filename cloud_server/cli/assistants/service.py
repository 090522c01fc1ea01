"""Let assistants ask: over stdin and stdout, or over HTTPS on a port of its own."""

import logging
import os
import signal
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import load_settings, url_host
from fleet_model.command_line.program import INTERRUPTED
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

LEAST = 2  # major version of the SDK
MAX_REQUEST_BYTES = 64_000  # of a call: arguments are a few words
log = logging.getLogger(__name__)


def require_sdk() -> None:
    """Raise SettingsError if the SDK is not there, or an older one."""
    try:
        found = version("mcp")
    except PackageNotFoundError:
        found = ""
    if not found or int(found.partition(".")[0]) < LEAST:
        what = f"mcp {found} is installed, expected {LEAST}" if found else "mcp is not installed"
        raise SettingsError(f"{what}: pip install 'fleetlearn[mcp]'")


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of what is typed; raises SettingsError."""
    host, colon, port = text.rpartition(":")
    number = int(port) if port.isdecimal() and len(port) <= 5 else -1
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in host and bare == host) or not 0 <= number <= 65535:
        raise SettingsError(
            f"--http {text[:80]}: expected HOST:PORT, as 127.0.0.1:8444 or [::1]:8444"
        )
    return bare, number


def serve_stdio(directory: Path, *, writes: bool) -> None:
    """Answer the program that has started this one, until it closes stdin."""
    import anyio
    from mcp.server.stdio import stdio_server

    if sys.stdin.isatty():
        sys.stderr.write(
            "an assistant starts this command and talks to it on stdin and stdout "
            "(docs/assistants.md); Ctrl-C ends it\n"
        )
    server = _server(directory, writes=writes)

    async def serve() -> None:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, 0)):
        signal.signal(number, lambda *_, code=code: _leave(code))
    anyio.run(serve)


def _leave(code: int) -> None:
    """End now: the SDK's thread that reads stdin would go on until somebody closes it.

    What a change was doing ends as in a power cut, which loses nothing.
    """
    logging.shutdown()
    os._exit(code)


def serve_http(server_dir: ServerDirectory, host: str, port: int, *, writes: bool) -> None:
    """Answer whoever has the admin token, with the server's certificate, until a signal.

    Raises:
        SettingsError: the port is taken, or token or certificate cannot be read.
    """
    from mcp.server.transport_security import TransportSecuritySettings

    from cloud_server.cli.assistants.door import PATH, Door, names_of
    from cloud_server.web.limits import bounded_server
    from cloud_server.web.listener import listen

    settings = load_settings(server_dir.settings)
    try:
        token = server_dir.admin_token.read_text().strip()
    except OSError as error:
        raise SettingsError(f"{server_dir.admin_token}: {error.strerror}") from None
    if not token:
        raise SettingsError(f"{server_dir.admin_token}: is empty; restore it from a backup")
    app = _server(server_dir.root, writes=writes).streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,  # a call is one request: nothing is held for clients that went away
        max_request_body_size=MAX_REQUEST_BYTES,
        # The door does it, for the names in the settings; by itself this knows this machine alone.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    names = names_of(settings.network, host)
    network = settings.network.model_copy(update={"host": host, "port": port})
    server = bounded_server(
        Door(app, token, names, settings.limits),
        network,
        settings.limits,
        server_dir.certificates / "server.crt",
        server_dir.secrets / "server.key",
    )
    try:
        sockets = listen(host, port, settings.limits)
    except SettingsError as error:
        raise SettingsError(
            f"{str(error).partition(';')[0]}; choose another --http HOST:PORT"
        ) from None
    bound = sockets[0].getsockname()[1]
    may = "read and change" if writes else "only read"
    log.info("assistants %s the fleet at https://%s:%d%s", may, url_host(host), bound, PATH)
    log.info("the token that they send is in %s", server_dir.admin_token)
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn raises the signal again once it has shut down: here that is a clean end
        signal.signal(number, lambda *_: None)
    server.run(sockets)
    log.info("stopped")


def _server(directory: Path, *, writes: bool) -> "Server[Any]":
    from cloud_server.cli.assistants.protocol import make_server
    from cloud_server.cli.assistants.reading import READING
    from cloud_server.cli.assistants.writing import WRITING

    logging.getLogger("mcp").setLevel(logging.WARNING)  # else two lines for each request
    tools = (*READING, *WRITING) if writes else READING
    withheld = () if writes else tuple(tool.name for tool in WRITING)
    return make_server(directory, tools, version("fleetlearn"), withheld)
