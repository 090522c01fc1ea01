"""What the commands and the server do with signatures."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

from securesystemslib.signer import CryptoSigner

from cloud_server.signing.keys import OnlineKeys
from cloud_server.signing.repository import Offline, SignedStore
from cloud_server.signing.roles import LIFETIME, lifetime
from cloud_server.signing.rollouts import follow, require_no_rollout, signed_parts, take_over
from cloud_server.signing.signed_by import record
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.kit import write_root
from cloud_server.state.model_store import DirectoryStore
from fleet_model.errors import BundleError, FleetError, SettingsError
from fleet_model.protocol.proof import utc_now
from fleet_model.protocol.routes import FALLBACK, NEXT, PLAN, STAGE, part_of_rollout

LOOK_S, GLANCE_S = 60.0, 1.0  # a glance sees whether a channel's file is another one
log = logging.getLogger(__name__)


def offer(server_dir: ServerDirectory, channel: str, version: int) -> None:
    """Make a published version of this lineage the newest model of a channel, and sign that.

    Robots that verify see it with the signature. Killed in between, the next signing does it.

    Raises:
        BundleError: it is not published.
        SettingsError: a key is missing or damaged, or a rollout goes on; no channel was changed.
    """
    require_may_offer(server_dir, channel, str(version))
    DirectoryStore(server_dir.store).offer(channel, version, server_dir.lineage)
    sign(server_dir)


def require_may_offer(server_dir: ServerDirectory, channel: str, version: str = "VERSION") -> None:
    """Raise SettingsError if the server cannot let a channel offer something else now.

    Who makes a new number, a checkpoint or an export for it asks this first. `version` is for
    words.
    """
    store = signed_store(server_dir)
    store.require_key()
    require_no_rollout(server_dir.store, channel)
    if channel in store.protected():
        raise SettingsError(
            f"channel {channel} is signed by offline keys: set publish.channel in server.toml to "
            f'another one, as "canary", and restart the server; `cloud-server models promote DIR '
            f"{version} --keys KEYS` gives a version to {channel}"
        )


def offer_newer(server_dir: ServerDirectory, channel: str, version: int) -> None:
    """Let a channel that the server signs offer a published version; raises as `offer`.

    Raises:
        BundleError: it is older than what the channel offers.
    """
    before = DirectoryStore(server_dir.store).channels().get(channel, -1)
    if version < before:
        raise _goes_back(channel, before, version)
    offer(server_dir, channel, version)


def _goes_back(channel: str, before: int, version: int) -> BundleError:
    return BundleError(
        f"channel {channel} offers version {before}, and numbers never go back; "
        f"`cloud-server models rollback DIR {version}` makes a new number of it to promote"
    )


def sign(server_dir: ServerDirectory, now: datetime | None = None, *, anew: bool = False) -> None:
    """Sign what channels offer, where that is not done; makes the key of a server without one.

    Raises:
        BundleError: the file of a channel is damaged.
        SettingsError: as SignedStore.sign.
    """
    store = signed_store(server_dir)
    for channel, promised in store.promised().items():
        take_over(server_dir.store, channel, promised)
    store.sign(lambda: offered(server_dir), now or utc_now(), anew=anew)
    write_root(server_dir)
    for channel, promised in store.promised().items():
        follow(DirectoryStore(server_dir.store), channel, promised)
    record(server_dir, store.files, now or utc_now())


def renew(server_dir: ServerDirectory, offline: Offline) -> None:
    """Let offline keys sign again what they have signed; raises as SignedStore.renew."""
    signed_store(server_dir).renew(offered(server_dir), utc_now(), offline)
    write_root(server_dir)


def sign_again(server_dir: ServerDirectory, now: datetime) -> None:
    """Sign all of a restored server above what it has signed since the backup; raises as `sign`.

    A server that never signed does it when it starts.
    """
    if signed_store(server_dir).files.newest_root() is not None:
        sign(server_dir, now, anew=True)


def rotate(
    server_dir: ServerDirectory, now: datetime, offline: Offline | None = None
) -> tuple[str, str]:
    """Let a new key sign from now on; return the ids of the old and the new one; raises as `sign`.

    Robots follow by themselves, also those that were away for several changes.
    """
    store = signed_store(server_dir)
    changed = store.rotate(offered(server_dir), now, offline)
    write_root(server_dir)
    record(server_dir, store.files, now)
    return changed


def require_other(channel: str, publishes: str) -> None:
    """Raise SettingsError if runs publish on a channel that offline keys are to sign."""
    if channel == publishes:
        raise SettingsError(
            f"runs publish on channel {channel}, and they have no offline key: first set "
            'publish.channel = "canary" in server.toml, and restart the server if it runs'
        )


def take_offline(
    server_dir: ServerDirectory, offline: Offline, threshold: int, channel: str, publishes: str
) -> None:
    """Let offline keys sign roots, and what a channel offers; `publishes` is what runs offer.

    Raises:
        SettingsError: runs publish on this channel, offline keys sign already, or a rollout on
            the channel goes on.
    """
    require_other(channel, publishes)
    require_no_rollout(server_dir.store, channel)
    now, store = utc_now(), DirectoryStore(server_dir.store)
    signed_store(server_dir).take_offline(offered(server_dir), now, offline, threshold, [channel])
    if publishes not in store.channels():  # until a run publishes, robots there get the same
        store.offer(publishes, *store.offers()[channel])
    sign(server_dir, now)


def take_online(
    server_dir: ServerDirectory, roots: Sequence[CryptoSigner], release: CryptoSigner | None
) -> None:
    """Let the server's key sign everything again.

    Raises:
        SettingsError: as SignedStore.take_online, or a rollout goes on.
    """
    for channel in signed_store(server_dir).protected():
        require_no_rollout(server_dir.store, channel)
    with suppress(SettingsError):  # of what offline keys have signed, and is lost
        sign(server_dir)  # first: channels' files name what offline keys have signed
    signed_store(server_dir).take_online(offered(server_dir), utc_now(), roots, release)
    sign(server_dir)


def promote(server_dir: ServerDirectory, channel: str, version: int, release: CryptoSigner) -> None:
    """Let a channel that offline keys sign offer a published version.

    The signature comes first: robots that verify take nothing else. Killed in between, the next
    signing corrects the channel's file.

    Raises:
        BundleError: it is not published, or older than what the channel offers.
        SettingsError: this key does not sign for the channel, or a rollout goes on.
    """
    require_no_rollout(server_dir.store, channel)
    store = DirectoryStore(server_dir.store)
    offers = store.offers()
    before, lineage = offers.get(channel, (-1, server_dir.lineage))
    if version < before:
        raise _goes_back(channel, before, version)
    put, offers_now = {channel: store.require(version, lineage)}, offered(server_dir)
    ended = [part_of_rollout(channel, part) for part in (PLAN, STAGE, NEXT, FALLBACK)]
    after = {name: one for name, one in offers_now.items() if name not in ended}
    signed_store(server_dir).change(offers_now, utc_now(), put, release, ended, after)
    store.offer(channel, version, lineage)
    sign(server_dir)


def signed_store(server_dir: ServerDirectory) -> SignedStore:
    """Return the signed half of the store."""
    return SignedStore(server_dir.store, OnlineKeys(server_dir.secrets))


def offered(server_dir: ServerDirectory) -> dict[str, bytes]:
    """Return name of a channel, of a site or of a rollout on it -> manifest, plan or stage.

    One whose manifest is lost is left out, `status` says so.

    Raises:
        BundleError: the file of a channel or site is damaged.
    """
    store, found = DirectoryStore(server_dir.store), {}
    for name in store.offers():
        with suppress(FileNotFoundError):
            content = store.latest_bytes(name)
            if content is not None:
                found[name] = content
    return found | signed_parts(server_dir.store)


def unsigned(server_dir: ServerDirectory, now: datetime) -> list[str]:
    """Return what is wrong with signatures, in sentences; an empty list is what should be."""
    try:
        store = signed_store(server_dir)
        store.require_key()
        current = store.files.current()
    except FleetError as error:
        return [str(error)]
    missing = [role for role in LIFETIME if role not in current]
    if missing:
        return [
            f"models are not signed ({', '.join(missing)} is missing): robots that verify keep "
            "theirs; `cloud-server start DIR` signs them"
        ]
    return [
        f"the signature of {role} counts until {one.signed.expires:%Y-%m-%d %H:%M} UTC; then robots"
        " take no new model. A running server signs again by itself, its log says why it did not"
        for role, one in current.items()
        if one.signed.expires - now < lifetime(role) / 4
    ]


class Signing:
    """Signs again in time, in a thread of the running server."""

    def __init__(self, server_dir: ServerDirectory, now: Callable[[], datetime] = utc_now) -> None:
        self._server_dir, self._now = server_dir, now
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signing", daemon=True)
        self._told = ""

    def start(self) -> None:
        """Sign now, and go on in the background."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        looked, seen = time.monotonic(), self._changed_at()
        while not self._ended.wait(GLANCE_S):
            if self._changed_at() != seen or time.monotonic() - looked > LOOK_S:
                looked, seen = time.monotonic(), self._changed_at()
                self.look()

    def _changed_at(self) -> int:
        try:
            return (self._server_dir.store / "channels").stat().st_mtime_ns
        except OSError:
            return 0

    def look(self) -> None:
        """Sign what is to be signed; what goes wrong is told once, and tried again."""
        try:
            sign(self._server_dir, self._now())
            self._told = ""
        except (FleetError, OSError) as error:
            if self._told != str(error):
                log.error("models are not signed: %s", error)
                self._told = str(error)
