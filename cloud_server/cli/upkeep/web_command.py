"""`cloud-server web`: a link that opens the running server's console, once."""

import json
from typing import Annotated

import typer

from cloud_server.cli.terminal import Directory, Json, say
from fleet_model.errors import SettingsError


def web(
    directory: Directory,
    open_browser: Annotated[
        bool, typer.Option("--open", help="open it in the browser of this machine")
    ] = False,
    end_sessions: Annotated[
        bool, typer.Option("--end-sessions", help="log every browser out, and close the console")
    ] = False,
    json_output: Json = False,
) -> None:
    """Print a link that opens the fleet in a browser: it works once, for five minutes.

    Over SSH, forward the port (ssh -L 8443:localhost:8443 SERVER) and open the link on your side.
    """
    from cloud_server.cli.admin_client import AdminClient
    from cloud_server.state.directory import ServerDirectory

    if open_browser and end_sessions:
        raise SettingsError("--open and --end-sessions: choose one")
    client = AdminClient(ServerDirectory(directory))
    if end_sessions:
        ended = client.end_console_sessions()
        told = json.dumps({"ended": ended}) if json_output else f"{ended} browsers are logged out"
        typer.echo(told)
        return
    url = client.console_link()
    typer.echo(json.dumps({"url": url}) if json_output else url)
    say(
        "It works once, for five minutes. The browser does not know this server's certificate "
        f"authority; it is {directory}/certificates/ca.crt"
    )
    if open_browser and typer.launch(url) != 0:
        say("no browser could be opened here; open the link by hand")
