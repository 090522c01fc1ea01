"""Commands over tokens, by which new robots admit themselves."""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_server.cli.terminal import Directory, Json, console, table
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from cloud_server.robots.tokens import Tokens
    from cloud_server.state.directory import ServerDirectory

app = typer.Typer(
    no_args_is_help=True,
    help="Tokens for kits: robots that have one admit themselves. By default there is none.",
)


@app.command("make")
def token_make(
    directory: Directory,
    uses: Annotated[int, typer.Option(min=1, max=10_000, help="robots that it admits")] = 1,
    hours: Annotated[float, typer.Option(min=0.01, max=8760, help="how long it is good")] = 24,
    site: Annotated[str, typer.Option(help="group of robots they belong to")] = "default",
    label: Annotated[list[str] | None, typer.Option(help="may be given several times")] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="they follow models only, until they are approved")
    ] = False,
    kit: Annotated[
        Path | None,
        typer.Option(help="new folder: a kit with this token in it; without it, it is printed"),
    ] = None,
) -> None:
    """Make a token. It is shown once, or is in the new kit; the server keeps its hash alone."""
    from fleet_model.durable import write_durably
    from fleet_model.protocol.proof import utc_now

    server_dir = _server_dir(directory)
    if kit is not None and kit.exists():
        raise SettingsError(f"--kit {kit}: is there already; name a new folder")
    token = _tokens(server_dir).make(
        utc_now(), valid=timedelta(hours=hours), uses=uses, site=site, labels=tuple(label or ()),
        pending=pending,
    )  # fmt: skip
    many = "one robot" if uses == 1 else f"{uses} robots"
    words = f"admits {many} at site {site} within {hours:g} h"
    revoke = f"cloud-server robots token revoke {directory} {token.partition('.')[0]}"
    if kit is None:
        typer.echo(token)
        console().print(f"{words}; to end it: {revoke}", soft_wrap=True, markup=False)
        return
    shutil.copytree(server_dir.kit, kit)
    write_durably(kit / "token", token + "\n", mode=0o600)
    console().print(
        f"{kit}: whoever has this folder {words}; to end it: {revoke}",
        soft_wrap=True, markup=False,
    )  # fmt: skip


@app.command("list")
def token_list(directory: Directory, json_output: Json = False) -> None:
    """Show the tokens, how often they were used, and why they admit nobody any more."""
    from fleet_model.protocol.proof import utc_now

    tokens, now = _tokens(_server_dir(directory)).all(), utc_now()
    if json_output:
        keep = {"sha256"}
        typer.echo(json.dumps([one.model_dump(mode="json", exclude=keep) for one in tokens]))
        return
    rows = [
        (
            one.id,
            one.site,
            f"{len(one.admitted)} of {one.uses}",
            f"{one.expires_at:%Y-%m-%d %H:%M}",
            one.why_not(now) or "good",
        )
        for one in tokens
    ]
    table(("token", "site", "used", "until (UTC)", "state"), rows)


@app.command("revoke")
def token_revoke(
    directory: Directory, token: Annotated[str, typer.Argument(metavar="TOKEN", help="its id")]
) -> None:
    """Let a token admit nobody any more; robots that it has admitted stay."""
    _tokens(_server_dir(directory)).revoke(token.partition(".")[0])
    console().print("revoked; robots that it has admitted stay", soft_wrap=True)


def _server_dir(directory: Path) -> "ServerDirectory":
    from cloud_server.state.directory import ServerDirectory

    server_dir = ServerDirectory(directory)
    server_dir.require()
    return server_dir


def _tokens(server_dir: "ServerDirectory") -> "Tokens":
    from cloud_server.robots.tokens import Tokens

    return Tokens(server_dir.tokens)
