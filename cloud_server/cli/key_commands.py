"""Commands over the keys that sign models."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import Directory, Json, console, table, with_given_directory
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

    from cloud_server.signing.keys import OfflineKeys
    from cloud_server.signing.repository import Offline
    from cloud_server.state.directory import ServerDirectory

app = typer.Typer(no_args_is_help=True, help="The keys that sign models.")


Keys = Annotated[
    Path | None, typer.Option("--keys", help="folder of the offline keys, if there are some")
]
SHORTEST = 12  # characters of a passphrase
PASSPHRASE = "CLOUD_SERVER_PASSPHRASE"  # noqa: S105  (the name of a variable)


@app.command("init")
def keys_init(
    directory: Directory,
    offline: Annotated[
        Path | None,
        typer.Option(help="new folder, best on a stick: make keys there that sign a channel"),
    ] = None,
    channel: Annotated[str, typer.Option(help="that the offline keys sign")] = "stable",
    root_keys: Annotated[int, typer.Option(min=1, max=9, help="offline keys of the root")] = 3,
    threshold: Annotated[
        int | None, typer.Option(min=1, max=9, help="so many sign a root  [more than half]")
    ] = None,
) -> None:
    """Make the key that signs; with --offline, keys with a passphrase for what matters most.

    The server has its key without this command: `init` and `start` make it.
    """
    from cloud_server.signing.signing import sign, signed_store

    server_dir = _server_dir(directory)
    if offline is not None:
        _take_offline(server_dir, offline, channel, root_keys, threshold or root_keys // 2 + 1)
        return
    if signed_store(server_dir).files.newest_root() is not None:
        raise SettingsError(
            f"{directory}: models are signed already; `cloud-server keys rotate {directory}` makes "
            "a new key"
        )
    sign(server_dir)
    _say(f"models are signed; the kit has the key's public half: {server_dir.kit}/root.json")


def _take_offline(
    server_dir: "ServerDirectory", folder: Path, channel: str, root_keys: int, threshold: int
) -> None:
    from cloud_server.signing.keys import OfflineKeys
    from cloud_server.signing.repository import Offline
    from cloud_server.signing.signing import require_other, take_offline
    from cloud_server.state.kit import write_kit
    from cloud_server.state.settings import load_settings

    if threshold > root_keys:
        raise SettingsError(f"--threshold {threshold}: there are {root_keys} root keys")
    if folder.resolve().is_relative_to(server_dir.root.resolve()):
        raise SettingsError(f"--offline {folder}: is on the server; name a folder that is not")
    settings = load_settings(server_dir.settings)
    require_other(channel, settings.publish.channel)  # before anything is asked
    word = _passphrase(confirm=True)
    keys = OfflineKeys(folder, lambda _: word)
    roots = [keys.make(f"root-{number}") for number in range(1, root_keys + 1)]
    offline = Offline(roots, keys.make("release"))
    take_offline(server_dir, offline, threshold, channel, settings.publish.channel)
    write_kit(server_dir, settings)
    _say(
        f"{channel} is signed by the key in {folder}/release.key from now on: `cloud-server models "
        f"promote {server_dir.root} VERSION --keys {folder}`. Take the folder away from the "
        f"server, keep copies of the root keys in different places ({threshold} of {root_keys} are "
        "needed), and renew the signatures within a year: `cloud-server keys renew`"
    )


@app.command("online")
def keys_online(
    directory: Directory,
    keys: Annotated[Path, typer.Option("--keys", help="folder of the offline keys")],
) -> None:
    """Let the server's own key sign everything again; robots follow by themselves.

    It takes enough root keys. The release key is used if it is there: it may be lost.
    """
    from cloud_server.signing.keys import OfflineKeys
    from cloud_server.signing.signing import take_online
    from cloud_server.state.kit import write_kit
    from cloud_server.state.settings import load_settings

    server_dir = _server_dir(directory)
    names = sorted(file.stem for file in keys.glob("*.key"))
    if not [name for name in names if name.startswith("root-")]:
        raise SettingsError(f"--keys {keys}: has no root-*.key; name the folder of offline keys")
    word = _passphrase()
    offline = OfflineKeys(keys, lambda _: word)
    roots = [offline.load(name) for name in names if name.startswith("root-")]
    take_online(server_dir, roots, offline.load("release") if "release" in names else None)
    settings = load_settings(server_dir.settings)
    write_kit(server_dir, settings)
    _say(
        "the server's key signs everything: who takes the server controls which models robots run. "
        f"New kits follow channel {settings.publish.channel}, on which runs publish; to let them "
        f'publish on stable again, set publish.channel = "stable" in server.toml, restart the '
        f"server, and run `cloud-server repair {directory}`"
    )


@app.command("renew")
def keys_renew(
    directory: Directory,
    keys: Annotated[Path, typer.Option("--keys", help="folder of the offline keys")],
) -> None:
    """Sign again what the offline keys have signed: it counts for a year."""
    from cloud_server.signing.signing import renew

    renew(_server_dir(directory), _offline(keys))
    _say("signed again, for a year")


@app.command("rotate")
def keys_rotate(directory: Directory, keys: Keys = None) -> None:
    """Let a new key of the server sign, and delete the old one; robots follow by themselves."""
    from cloud_server.signing.signing import rotate
    from fleet_model.protocol.proof import utc_now

    offline = None if keys is None else _offline(keys)
    old, new = rotate(_server_dir(directory), utc_now(), offline)
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
        columns = ("role", "signed with", "key is in", "number", "counts until (UTC)", "offers")
        rows = [
            (
                one["role"],
                ", ".join(one["keys"]),
                one["place"],
                str(one["version"]),
                one["until"],
                ", ".join(f"{name}: {version}" for name, version in one["offers"].items()),
            )
            for one in roles
        ]
        table(columns, rows)
    for sentence in wrong:
        typer.echo(with_given_directory(sentence))
    if roles:
        _say(_who_controls(roles))


def _roles(server_dir: "ServerDirectory") -> list[dict[str, Any]]:
    from cloud_server.signing.keys import SHOWN, OnlineKeys
    from cloud_server.signing.signing import signed_store

    here = {keyid[:SHOWN] for keyid in OnlineKeys(server_dir.secrets).load()}
    files = signed_store(server_dir).files
    return [
        {
            "role": role,
            "keys": sorted(keyid[:SHOWN] for keyid in one.signatures),
            "place": _place({keyid[:SHOWN] for keyid in one.signatures}, here),
            "version": one.signed.version,
            "until": f"{one.signed.expires:%Y-%m-%d %H:%M}",
            "offers": files.offers_of(one.signed),
        }
        for role, one in files.current().items()
    ]


def _place(keys: set[str], here: set[str]) -> str:
    return "secrets/" if keys <= here else "both" if keys & here else "offline"


def _who_controls(roles: list[dict[str, Any]]) -> str:
    names = {one["role"] for one in roles}
    protected = sorted(names - {"root", "targets", "online", "snapshot", "timestamp"})
    if protected:
        return (
            f"who takes this server controls no robot on channel {', '.join(protected)}: it has no "
            "key for that. Robots on other channels run what the server's key signs"
        )
    return (
        "one key signs everything, and the server has it: who takes this server controls which "
        "models robots run. Robots still refuse what anybody else makes, changes or holds back"
    )


def _offline(folder: Path) -> "Offline":
    from cloud_server.signing.repository import Offline

    keys = _opened(folder)
    roots = sorted(file.stem for file in folder.glob("root-*.key"))
    return Offline([keys.load(name) for name in roots], keys.load("release"))


def release_key(folder: Path) -> "CryptoSigner":
    """Return the key that signs what a channel offers; asks for its passphrase."""
    return _opened(folder).load("release")


def _opened(folder: Path) -> "OfflineKeys":
    from cloud_server.signing.keys import OfflineKeys

    if not (folder / "release.key").is_file():
        raise SettingsError(f"--keys {folder}: has no release.key; name the folder of offline keys")
    word = _passphrase()
    return OfflineKeys(folder, lambda _: word)


def _passphrase(*, confirm: bool = False) -> str:
    if PASSPHRASE not in os.environ and not sys.stdin.isatty():
        raise SettingsError(f"the passphrase is asked on a terminal; a script sets {PASSPHRASE}")
    word = os.environ.get(PASSPHRASE) or typer.prompt(
        "passphrase of the offline keys", hide_input=True, confirmation_prompt=confirm, err=True
    )
    if confirm and len(word) < SHORTEST:
        raise SettingsError(
            f"the passphrase has {len(word)} characters, expected at least {SHORTEST}"
        )
    return str(word)


def _say(text: str) -> None:
    console().print(text, soft_wrap=True, markup=False)


def _server_dir(directory: Path) -> "ServerDirectory":
    from cloud_server.state.directory import ServerDirectory

    server_dir = ServerDirectory(directory)
    server_dir.require()
    return server_dir
