"""Commands that publish a version, and give it to a channel or to one site on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_server.cli.terminal import Directory, trained_and_publish, trained_of, with_steps
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

    from cloud_server.state.directory import ServerDirectory

Version = Annotated[int, typer.Argument(min=0, help="as `cloud-server models list` shows it")]
Site = Annotated[str, typer.Option(help="as `cloud-server robots list` shows it")]
Keys = Annotated[
    Path | None, typer.Option(help="folder of the offline keys, if they sign for the channel")
]
Channel = Annotated[str | None, typer.Option(help="whose robots  [what new kits follow]")]


def publish(
    directory: Directory,
    version: Version,
    channel: Annotated[
        str, typer.Option(help="whose version it is, if that channel is trained by itself")
    ] = "",
    site: Annotated[
        str, typer.Option(help="only the model of this site, for `models assign`")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="with --site: also one that is worse for its robots")
    ] = False,
) -> None:
    """Publish a checkpoint that the gate has withheld; the next run goes on from it."""
    if not site:
        typer.echo(published(directory, version, channel))
        return
    from cloud_server.rollback import publish_site, site_measures

    server_dir, settings = trained_and_publish(directory, channel)
    with with_steps("publish") as tell:
        number = publish_site(server_dir, settings, version, site, tell, force)
    if site_measures(server_dir, version, site) is None:
        typer.echo(f"WARNING: no robot of site {site} has measured it", err=True)
    typer.echo(
        f"version {number} is the model of site {site} at version {version}; nobody gets it "
        f"before `cloud-server models assign {directory} {number} --site {site}`"
    )


def published(directory: Path, version: int, channel: str) -> str:
    """Publish a checkpoint, and return what has happened; steps are shown on stderr.

    Raises as `rollback.publish_checkpoint`.
    """
    from cloud_server.rollback import publish_checkpoint

    server_dir, settings = trained_and_publish(directory, channel)
    with with_steps("publish") as tell:
        number = publish_checkpoint(server_dir, settings, version, tell)
    same = "" if number == version else f", with the weights of version {version}"
    return f"version {number} is published{same}; the next run goes on from it"


def promote(
    directory: Directory,
    version: Version,
    channel: Annotated[str, typer.Option(help="whose robots")] = "stable",
    keys: Keys = None,
    groups: Annotated[
        str, typer.Option(help="robots that get it one group after the other: 10%,site:a,100%")
    ] = "",
    threshold: Annotated[
        float, typer.Option(min=0, max=0.99, help="share of robots that may fail in a rollout")
    ] = 0.2,
    wait: Annotated[
        float, typer.Option(min=0, max=100_000, help="minutes, at least, before the next group")
    ] = 10.0,
) -> None:
    """Give a published version to a channel: to all robots, or to one group after the other."""
    wish = (groups_of(groups), threshold, 60 * wait) if groups else None
    typer.echo(promoted(directory, version, channel, keys, wish))


def promoted(
    directory: Path,
    version: int,
    channel: str,
    keys: Path | None = None,
    wish: tuple[tuple[str, ...], float, float] | None = None,
) -> str:
    """Give a version to a channel, and return what has happened.

    Args:
        directory: of the server.
        version: a published one.
        channel: whose robots get it.
        keys: folder of the offline keys, if they sign for the channel.
        wish: of a rollout in stages: its groups, the share that may fail, seconds between two; None
            gives it to all robots at once.
    """
    server_dir = trained_of(directory, "")
    channel, release = _signer(server_dir, channel, keys)
    if wish is not None:
        return _roll_out(server_dir, channel, version, wish, release)
    if release is None:
        from cloud_server.signing.signing import offer_newer

        offer_newer(server_dir, channel, version)
    else:
        from cloud_server.signing.signing import promote as sign_and_offer

        sign_and_offer(server_dir, channel, version, release)
    return f"channel {channel} offers version {version}"


def _roll_out(
    server_dir: "ServerDirectory",
    channel: str,
    version: int,
    wish: tuple[tuple[str, ...], float, float],
    release: "CryptoSigner | None",
) -> str:
    from cloud_server.rollout.changes import Wish, begin

    plan = begin(server_dir, channel, version, Wish(*wish), release).plan
    return (
        f"version {version} goes to {plan.groups[0]} of the robots on channel {channel} first; "
        f"the running server opens the next groups ({', '.join(plan.groups[1:]) or 'none'}). "
        f"`cloud-server rollout status {server_dir.root}` shows how far it is; taken back, "
        f"version {plan.present.version} becomes version {plan.fallback.version}"
    )


def groups_of(text: str) -> tuple[str, ...]:
    """Return the groups of a rollout as they are typed; raises SettingsError."""
    from fleet_model.protocol.rollout import group_word, groups_that_follow

    try:
        return groups_that_follow(tuple(group_word(one.strip()) for one in text.split(",")))
    except ValueError as error:
        raise SettingsError(f"--groups {text[:80]}: {error}") from None


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
