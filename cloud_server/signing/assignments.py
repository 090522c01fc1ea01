"""What a channel offers to the robots of one site, in the place of what it offers to all.

Signed by whoever signs the channel: a stolen server assigns nothing where offline keys sign. The
order is that of a promotion: with offline keys the signature first, then the file.
"""

import re
from contextlib import suppress

from securesystemslib.signer import CryptoSigner

from cloud_server.signing.signing import offered, sign, signed_store
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from fleet_model.errors import BundleError, SettingsError
from fleet_model.protocol.proof import utc_now
from fleet_model.protocol.routes import SITE, site_offer


def assign(
    server_dir: ServerDirectory,
    channel: str,
    site: str,
    version: int,
    release: CryptoSigner | None = None,
) -> None:
    """Let the robots of a site get a published version, whatever the channel offers.

    Raises:
        BundleError: it is not published, or older than what the site is offered.
        SettingsError: no such site can be, the channel offers nothing, or its key is not here.
    """
    store, name = DirectoryStore(server_dir.store), _name(server_dir, channel, site)
    offers = store.offers()
    lineage = offers[channel][1]
    before = offers.get(name, (-1, ""))[0]
    if version < before:
        raise BundleError(
            f"site {site} is offered version {before}, and numbers never go back; "
            f"`cloud-server models rollback DIR {version}` makes a new number of it to assign"
        )
    manifest = store.require(version, lineage)
    if release is not None:
        put = {name: manifest}
        signed_store(server_dir).change(offered(server_dir), utc_now(), put, release)
    else:
        sign(server_dir)
        signed_store(server_dir).require_delegated(name)
    store.offer(name, version, lineage)
    sign(server_dir)


def unassign(
    server_dir: ServerDirectory, channel: str, site: str, release: CryptoSigner | None = None
) -> None:
    """Let the robots of a site get what the channel offers again.

    Raises:
        SettingsError: nothing is assigned to it, or the channel's key is not here.
    """
    store, name = DirectoryStore(server_dir.store), _name(server_dir, channel, site)
    if name not in store.offers():
        raise SettingsError(
            f"site {site} has no version of its own on channel {channel}; `cloud-server models "
            "list DIR` shows which sites have one"
        )
    if release is not None:
        signed_store(server_dir).change(offered(server_dir), utc_now(), {}, release, [name])
    with suppress(FileNotFoundError):  # a running server has just followed the signature
        store.withdraw(name)
    sign(server_dir)


def require_keys(server_dir: ServerDirectory, channel: str, *, given: bool) -> None:
    """Raise SettingsError unless offline keys are given where they sign, and only there."""
    protected = channel in signed_store(server_dir).protected()
    if protected and not given:
        raise SettingsError(
            f"channel {channel} is signed by offline keys: name their folder, --keys KEYS"
        )
    if given and not protected:
        raise SettingsError(
            f"no offline keys sign for channel {channel}, the server's own key does: leave --keys "
            "away"
        )


def _name(server_dir: ServerDirectory, channel: str, site: str) -> str:
    if not re.fullmatch(SITE, site):
        raise SettingsError(
            f"--site {site}: expected the name of a site: letters, digits, '.', '_' and '-', at "
            "most 63, a letter or digit first; `cloud-server robots list DIR` shows them"
        )
    if channel not in DirectoryStore(server_dir.store).channels():
        raise SettingsError(
            f"--channel {channel}: nothing is published on it; `cloud-server models list DIR` "
            "shows the channels"
        )
    return site_offer(channel, site)
