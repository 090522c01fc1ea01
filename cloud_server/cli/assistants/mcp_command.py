"""`cloud-server mcp`."""

from typing import Annotated

import typer

from cloud_server.cli.terminal import Directory


def mcp(
    directory: Directory,
    http: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="listen there, over HTTPS; assistants send the admin token  [stdin and stdout]",
        ),
    ] = "",
    allow_writes: Annotated[
        bool,
        typer.Option(
            "--allow-writes",
            help="it may approve robots, start and stop runs, publish, promote and roll back",
        ),
    ] = False,
) -> None:
    """Let an assistant ask about robots, runs and models, by the Model Context Protocol.

    Over stdin and stdout, for an assistant that starts this command; or over HTTPS, until Ctrl-C
    or SIGTERM.

    Example: cloud-server mcp fleet --http 127.0.0.1:8444
    """
    from cloud_server.cli.assistants.service import (
        address_of,
        require_sdk,
        serve_http,
        serve_stdio,
    )
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.logs import log_to_stderr
    from cloud_server.state.settings import load_settings

    address = address_of(http) if http else None
    require_sdk()
    server_dir = ServerDirectory(directory)
    server_dir.require()
    log_to_stderr(load_settings(server_dir.settings).log, directory)
    if address is None:
        serve_stdio(directory, writes=allow_writes)
    else:
        serve_http(server_dir, *address, writes=allow_writes)
