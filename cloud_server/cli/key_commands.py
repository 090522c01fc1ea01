"""Commands over the keys that sign models."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cloud_server.cli.terminal import Directory, Json, console, table, with_given_directory
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from cloud_server.state.directory import ServerDirectory

app = typer.Typer(no_args_is_help=True, help="The keys that sign models.")


@app.command("init")
def keys_init(directory: Directory) -> None:
    """Make the key, and sign what channels offer. `init` and `start` do it by themselves, too."""
    from cloud_server.signing.signing import sign, signed_store

    server_dir = _server_dir(directory)
    if signed_store(server_dir).newest_root() is not None:
        raise SettingsError(
            f"{directory}: models are signed already; `cloud-server keys rotate {directory}` makes "
            "a new key"
        )
    sign(server_dir)
    _say(f"models are signed; the kit has the key's public half: {server_dir.kit}/root.json")


@app.command("rotate")
def keys_rotate(directory: Directory) -> None:
    """Sign with a new key from now on, and delete the old one; robots follow by themselves."""
    from cloud_server.signing.signing import rotate
    from fleet_model.protocol.proof import utc_now

    old, new = rotate(_server_dir(directory), utc_now())
    _say(f"key {new} signs from now on; {old} is deleted. Backups from before hold the old one")


@app.command("status")
def keys_status(directory: Directory, json_output: Json = False) -> None:
    """Show which key signs what, until when, and what is wrong."""
    from cloud_server.signing.signing import unsigned
    from fleet_model.protocol.proof import utc_now

    server_dir = _server_dir(directory)
    roles, wrong = _roles(server_dir), unsigned(server_dir, utc_now())
    if json_output:
        typer.echo(json.dumps({"roles": roles, "wrong": wrong}))
        return
    if roles:
        columns = ("role", "signed with", "key is in", "number", "counts until (UTC)")
        rows = [
            (one["role"], ", ".join(one["keys"]), one["place"], str(one["version"]), one["until"])
            for one in roles
        ]
        table(columns, rows)
    for sentence in wrong:
        typer.echo(with_given_directory(sentence))
    if roles:
        _say(
            "one key signs everything, and the server has it: who takes this server controls which "
            "models robots run. Robots still refuse what anybody else makes, changes or holds back"
        )


def _roles(server_dir: "ServerDirectory") -> list[dict[str, Any]]:
    from cloud_server.signing.keys import SHOWN
    from cloud_server.signing.signing import signed_store

    return [
        {
            "role": role,
            "keys": sorted(keyid[:SHOWN] for keyid in one.signatures),
            "place": "secrets/",
            "version": one.signed.version,
            "until": f"{one.signed.expires:%Y-%m-%d %H:%M}",
        }
        for role, one in signed_store(server_dir).current().items()
    ]


def _say(text: str) -> None:
    console().print(text, soft_wrap=True, markup=False)


def _server_dir(directory: Path) -> "ServerDirectory":
    from cloud_server.state.directory import ServerDirectory

    server_dir = ServerDirectory(directory)
    server_dir.require()
    return server_dir
