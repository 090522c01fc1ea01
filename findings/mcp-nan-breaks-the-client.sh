#!/usr/bin/env bash
# An MCP tool that returns NaN makes the client raise, though the server called the call a success.
#
# Version: mcp 2.3.0 (the official Python SDK), server and client in one process, Python 3.11.
# Expected: by the specification (2025-11-25, server/tools) a server's structured results conform to
#   the schema that it declares, and what fails in a tool is a result with isError, which a model can
#   read. So NaN, which JSON lacks, from a tool typed `-> float` comes back as is_error=True.
# Seen: the server declares a number and sends null without an error; the SDK's own client then
#   raises RuntimeError, so the mean of no values looks like a broken server. ToolError does come back.
# Exits 1 if that is no longer so.
#
# Output on 2026-12-03:
#   mcp 2.3.0, mean_of_nothing: RuntimeError: Invalid structured content returned by tool mean_of_nothing: None is not of type 'number'
#   mcp 2.3.0, refuse: is_error=True
#   as described: the client raises instead of showing a tool error
set -eu
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq mcp==2.3.0
cat > "$work/nan.py" <<'PYTHON'
import asyncio
import sys
from importlib.metadata import version

from mcp import Client
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("means")


@server.tool()
def mean_of_nothing() -> float:
    return float("nan")


@server.tool()
def refuse() -> float:
    raise ToolError("no values")


async def main() -> bool:
    found = []
    async with Client(server) as client:
        for name in ("mean_of_nothing", "refuse"):
            try:
                found.append(f"is_error={(await client.call_tool(name, {})).is_error}")
            except Exception as error:
                found.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
            print(f"mcp {version('mcp')}, {name}: {found[-1]}")
    nan, refused = found
    return (nan.startswith("RuntimeError") and "None is not of type 'number'" in nan
            and refused == "is_error=True")


sys.exit(not asyncio.run(main()))
PYTHON
"$work/venv/bin/python" "$work/nan.py" 2> "$work/log" ||
    { tail -n 3 "$work/log"; echo "changed: no longer as described above"; exit 1; }
echo "as described: the client raises instead of showing a tool error"
