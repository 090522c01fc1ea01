"""What the commands and the server do with signatures."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from cloud_server.signing.keys import OnlineKeys
from cloud_server.signing.repository import SignedStore
from cloud_server.signing.roles import LIFETIME
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.kit import write_root
from cloud_server.state.model_store import DirectoryStore
from fleet_model.errors import FleetError
from fleet_model.protocol.proof import utc_now

LOOK_S, GLANCE_S = 60.0, 1.0  # a glance sees whether a channel's file is another one
log = logging.getLogger(__name__)


def offer(server_dir: ServerDirectory, channel: str, version: int) -> None:
    """Make a published version of this lineage the newest model of a channel, and sign that.

    Robots that verify see it with the signature. Killed in between, the next signing does it.

    Raises:
        BundleError: it is not published.
        SettingsError: a key is missing or damaged; no channel was changed.
    """
    signed_store(server_dir).require_key()
    DirectoryStore(server_dir.store).offer(channel, version, server_dir.lineage)
    sign(server_dir)


def sign(server_dir: ServerDirectory, now: datetime | None = None, *, anew: bool = False) -> None:
    """Sign what channels offer, where that is not done; makes the key of a server without one.

    Raises:
        BundleError: the file of a channel is damaged.
        SettingsError: as SignedStore.sign.
    """
    signed_store(server_dir).sign(offered(server_dir), now or utc_now(), anew=anew)
    write_root(server_dir)


def sign_again(server_dir: ServerDirectory, now: datetime) -> None:
    """Sign all of a restored server above what it has signed since the backup; raises as `sign`.

    A server that never signed does it when it starts.
    """
    if signed_store(server_dir).newest_root() is not None:
        sign(server_dir, now, anew=True)


def rotate(server_dir: ServerDirectory, now: datetime) -> tuple[str, str]:
    """Let a new key sign from now on; return the ids of the old and the new one; raises as `sign`.

    Robots follow by themselves, also those that were away for several changes.
    """
    changed = signed_store(server_dir).rotate(offered(server_dir), now)
    write_root(server_dir)
    return changed


def signed_store(server_dir: ServerDirectory) -> SignedStore:
    """Return the signed half of the store."""
    return SignedStore(server_dir.store, OnlineKeys(server_dir.secrets))


def offered(server_dir: ServerDirectory) -> dict[str, bytes]:
    """Return channel -> manifest; a channel whose manifest is lost is left out, `status` says so.

    Raises:
        BundleError: the file of a channel is damaged.
    """
    store, found = DirectoryStore(server_dir.store), {}
    for channel in store.channels():
        with suppress(FileNotFoundError):
            content = store.latest_bytes(channel)
            if content is not None:
                found[channel] = content
    return found


def unsigned(server_dir: ServerDirectory, now: datetime) -> list[str]:
    """Return what is wrong with signatures, in sentences; an empty list is what should be."""
    try:
        store = signed_store(server_dir)
        store.require_key()
        current = store.current()
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
        if one.signed.expires - now < LIFETIME[role] / 4
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
