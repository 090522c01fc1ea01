"""Commands that give a published version to a channel, or to one site on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_server.cli.terminal import Directory, trained_of

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

    from cloud_server.state.directory import ServerDirectory

Version = Annotated[int, typer.Argument(min=0, help="as `cloud-server models list` shows it")]
Site = Annotated[str, typer.Option(help="as `cloud-server robots list` shows it")]
Keys = Annotated[
    Path | None, typer.Option(help="folder of the offline keys, if they sign for the channel")
]
Channel = Annotated[str | None, typer.Option(help="whose robots  [what new kits follow]")]


def promote(
    directory: Directory,
    version: Version,
    keys: Annotated[Path, typer.Option("--keys", help="folder of the offline keys")],
    channel: Annotated[str, typer.Option(help="that the offline keys sign")] = "stable",
) -> None:
    """Let a channel that offline keys sign offer a published version; asks for the passphrase."""
    from cloud_server.cli.key_commands import release_key
    from cloud_server.signing.signing import promote as sign_and_offer

    server_dir = trained_of(directory, "")
    sign_and_offer(server_dir, channel, version, release_key(keys))
    typer.echo(f"channel {channel} offers version {version}")


def assign(
    directory: Directory,
    version: Version,
    site: Site,
    channel: Channel = None,
    keys: Keys = None,
) -> None:
    """Give the robots of one site a version of their own, whatever the channel offers."""
    from cloud_server.robots.register import Register
    from cloud_server.signing.assignments import assign as sign_and_assign

    server_dir = trained_of(directory, "")
    channel, release = _signer(server_dir, channel, keys)
    sign_and_assign(server_dir, channel, site, version, release)
    there = sum(robot.site == site for robot in Register(server_dir.robots).robots())
    typer.echo(
        f"robots of site {site} on channel {channel} get version {version}; the register has "
        f"{there} of them"
    )


def unassign(directory: Directory, site: Site, channel: Channel = None, keys: Keys = None) -> None:
    """Let the robots of one site follow the channel again."""
    from cloud_server.signing.assignments import unassign as sign_and_unassign

    server_dir = trained_of(directory, "")
    channel, release = _signer(server_dir, channel, keys)
    sign_and_unassign(server_dir, channel, site, release)
    typer.echo(f"robots of site {site} get what channel {channel} offers")


def _signer(
    server_dir: "ServerDirectory", channel: str | None, keys: Path | None
) -> "tuple[str, CryptoSigner | None]":
    """Return the channel, and the offline key that signs for it, if one does."""
    from cloud_server.cli.key_commands import release_key
    from cloud_server.signing.assignments import require_keys
    from cloud_server.state.kit import channel_of_kit
    from cloud_server.state.settings import load_settings

    if channel is None:
        channel = channel_of_kit(server_dir, load_settings(server_dir.settings))
    require_keys(server_dir, channel, given=keys is not None)
    return channel, None if keys is None else release_key(keys)
