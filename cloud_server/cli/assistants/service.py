"""Let assistants ask: over stdin and stdout."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fleet_model.errors import SettingsError

LEAST = 2  # major version of the SDK


def require_sdk() -> None:
    """Raise SettingsError if the SDK is not there, or an older one."""
    try:
        found = version("mcp")
    except PackageNotFoundError:
        found = ""
    if not found or int(found.partition(".")[0]) < LEAST:
        what = f"mcp {found} is installed, expected {LEAST}" if found else "mcp is not installed"
        raise SettingsError(f"{what}: pip install 'fleetlearn[mcp]'")


def serve_stdio(directory: Path) -> None:
    """Answer the program that has started this one, until it closes stdin."""
    import anyio
    from mcp.server.stdio import stdio_server

    from cloud_server.cli.assistants.protocol import make_server
    from cloud_server.cli.assistants.reading import READING

    if sys.stdin.isatty():
        sys.stderr.write(
            "an assistant starts this command and talks to it on stdin and stdout "
            "(docs/assistants.md); Ctrl-C ends it\n"
        )
    server = make_server(directory, READING, version("fleetlearn"))

    async def serve() -> None:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    anyio.run(serve)
