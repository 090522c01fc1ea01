"""Signs what channels offer, where that is missing, changed, does not fit, or is soon out of date.

So `sign` is also what mends a signing that was cut short. files.py has the files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from cloud_server.signing.files import SignedFiles, is_signed_for
from cloud_server.signing.keys import SHOWN, OnlineKeys
from cloud_server.signing.roles import (
    ONLINE,
    TAKEN,
    channel_of,
    first_root,
    is_fresh,
    lacks_only_paths,
    numbered,
    offering,
    protected_by,
    signs_online,
    snapshot_for,
    still_says,
    targets_for,
    timestamp_for,
    with_changes,
    with_key,
    with_offline_keys,
    with_online_key,
)
from cloud_server.signing.signers import key_of, of_root
from fleet_model.errors import SettingsError
from fleet_model.protocol.routes import name_of, target_of

_NOTHING: Mapping[str, Targets] = MappingProxyType({})
Payload = TypeVar("Payload", Targets, Snapshot, Timestamp)
Offers = Callable[[], Mapping[str, bytes]]  # name of a channel, or of a site on it -> manifest


@dataclass(frozen=True, slots=True)
class Offline:
    """Keys of persons, here for one command."""

    roots: Sequence[CryptoSigner]
    release: CryptoSigner  # of targets, and of the channels that offline keys sign


class SignedStore:
    """Signs what channels offer; whoever changes it holds a lock, also against other processes."""

    def __init__(self, store: Path, keys: OnlineKeys) -> None:
        self.files, self._keys = SignedFiles(store), keys

    def sign(self, offers: Offers, now: datetime, *, anew: bool = False) -> None:
        """Make the signed metadata say what channels offer, and be fresh.

        Args:
            offers: is called while nobody else signs: what another process offers stays.
            now: UTC.
            anew: sign all again, with higher numbers: robots may have seen some that are not here.

        Raises:
            SettingsError: a key or a root is missing or damaged.
        """
        with self.files.changing():
            self._sign(offers(), now, anew=anew)

    def rotate(
        self, offers: Mapping[str, bytes], now: datetime, offline: Offline | None = None
    ) -> tuple[str, str]:
        """Sign with a new online key from now on; return the ids of the old and the new one.

        Robots follow by a root that the keys of both roots sign. The old key is deleted at the end.
        Killed in between, the next signing ends it; with offline keys `renew` does.

        Raises:
            SettingsError: offline keys sign the root, and too few of them are here.
        """
        with self.files.changing():
            if offline is None:
                self._sign(offers, now)  # first: what was cut short before
            root = self._root()
            old = key_of(root, self._keys.load())
            roots = of_root(root, [old, *(offline.roots if offline else ())])
            new = self._keys.make()
            payload = with_key(root, old.public_key.keyid, new.public_key)
            by = [*roots, *([new] if old in roots else [])]
            self._write_root(payload, root.version, by, now)
            if offline is not None:
                self._sign_others(payload, [new, offline.release], offers, now)
            self._sign(offers, now)
            return old.public_key.keyid[:SHOWN], new.public_key.keyid[:SHOWN]

    def renew(self, offers: Mapping[str, bytes], now: datetime, offline: Offline) -> None:
        """Let offline keys sign again what they have signed, before it is out of date.

        Raises:
            SettingsError: these are not the keys that sign here.
        """
        with self.files.changing():
            root = self._root()
            roots = of_root(root, offline.roots)
            signers = [key_of(root, self._keys.load()), offline.release]
            if offline.release.public_key.keyid not in root.roles["targets"].keyids:
                raise SettingsError("the release key is not the one that signs here")
            self._write_root(root, root.version, roots, now)
            self._sign_others(root, signers, offers, now, anew=True)
            self._sign(offers, now)

    def take_offline(
        self,
        offers: Mapping[str, bytes],
        now: datetime,
        offline: Offline,
        threshold: int,
        channels: Sequence[str],
    ) -> None:
        """Let offline keys sign roots, and what some channels offer; the online key the others.

        Every step leaves what robots accept: the new targets have both signatures before the root
        changes. Killed in between, the same call with the same keys ends it.

        Raises:
            SettingsError: offline keys sign already, or a channel offers nothing.
        """
        with self.files.changing():
            self._sign(offers, now)
            root = self._root()
            online = key_of(root, self._keys.load())
            if root.roles["root"].keyids != [online.public_key.keyid]:
                raise SettingsError("offline keys sign already")
            if missing := [one for one in channels if one not in offers or one in TAKEN]:
                raise SettingsError(f"channel {missing[0]} offers nothing that could be signed")
            signed = {
                channel: offering(
                    {n: one for n, one in offers.items() if not signs_online(n, [channel])}
                )
                for channel in channels
            }
            self._sign_others(root, [online, offline.release], offers, now, offline=signed)
            keys = [one.public_key for one in offline.roots]
            payload = with_offline_keys(root, keys, threshold, offline.release.public_key)
            self._write_root(payload, root.version, [online, *offline.roots], now)
            self._sign(offers, now)

    def take_online(
        self,
        offers: Mapping[str, bytes],
        now: datetime,
        roots: Sequence[CryptoSigner],
        release: CryptoSigner | None,
    ) -> None:
        """Let the online key sign everything again.

        The new targets have both signatures before the root changes. Without the release key, which
        may be lost, the root changes first: robots that look in between keep what they have, and
        look again. Killed in between, the same call ends it.

        Raises:
            SettingsError: no offline keys sign here, or these are too few of them, or others.
        """
        with self.files.changing():
            root = self._root()
            online = key_of(root, self._keys.load())
            if root.roles["root"].keyids == [online.public_key.keyid]:
                raise SettingsError("no offline keys sign here: the server's key signs everything")
            signers = of_root(root, roots)
            if release is not None:
                if release.public_key.keyid not in root.roles["targets"].keyids:
                    raise SettingsError("the release key is not the one that signs here")
                self._sign_others(root, [online, release], offers, now, free=True)
            payload = with_online_key(root, online.public_key)
            self._write_root(payload, root.version, [online, *signers], now)
            self._sign_others(payload, [online], offers, now, free=True)
            self._sign(offers, now)

    def change(
        self,
        offers: Mapping[str, bytes],
        now: datetime,
        put: Mapping[str, bytes],
        release: CryptoSigner,
        dropped: Sequence[str] = (),
        after: Mapping[str, bytes] | None = None,
    ) -> None:
        """Sign with the offline key what a channel, or a site on it, offers from now on.

        Args:
            offers: name of a channel, or of a site on it -> manifest.
            now: UTC.
            put: name -> manifest, all of one channel.
            release: the offline key.
            dropped: names that are offered nothing of their own any more.
            after: what `offers` are together with this change, if others.

        Raises:
            SettingsError: this is not the key that signs for the channel.
        """
        with self.files.changing():
            self._sign(offers, now)
            root, channel = self._root(), channel_of([*put, *dropped][0])
            key = self.protected().get(channel)
            if key is None or key.keyid != release.public_key.keyid:
                raise SettingsError(f"this key does not sign for channel {channel}")
            signers = [key_of(root, self._keys.load()), release]
            signed = with_changes(self.files.current()[channel].signed, put, dropped)
            self.files.write_manifests(put)
            offers = offers if after is None else after
            self._sign_others(root, signers, offers, now, offline={channel: signed})
            self.files.tidy()

    def require_delegated(self, name: str) -> None:
        """Raise SettingsError if nobody may sign what is offered under a name.

        Offline keys say who may, and have signed that before this version had such names.
        """
        targets = self.files.current().get("targets")
        delegations = None if targets is None else targets.signed.delegations
        roles = (delegations.roles or {}).values() if delegations else ()
        if targets is not None and not any(
            role.is_delegated_path(target_of(name)) for role in roles
        ):
            raise SettingsError(
                f"robots would not find {name}: the offline keys have signed by an older version "
                "who may sign what; first `cloud-server keys renew DIR --keys KEYS`"
            )

    def require_key(self) -> None:
        """Raise SettingsError unless the key that signs is here, or nothing is signed yet."""
        root = self.files.newest_root()
        if root is not None:
            key_of(root.signed, self._keys.load())

    def protected(self) -> Mapping[str, Key]:
        """Return channel -> the offline key that signs for it."""
        targets = self.files.current().get("targets")
        return protected_by(None if targets is None else targets.signed)

    def promised(self) -> Mapping[str, Mapping[str, str]]:
        """Return channel -> name -> sha256 of the manifest that offline keys have signed."""
        current = self.files.current()
        return {
            channel: {
                name_of(path): target.hashes["sha256"]
                for path, target in current[channel].signed.targets.items()
            }
            for channel in self.protected()
            if channel in current
        }

    def _root(self) -> Root:
        root = self.files.newest_root()
        if root is None:
            raise SettingsError("models are not signed yet; `cloud-server keys init DIR` does it")
        return root.signed

    def _sign(self, offers: Mapping[str, bytes], now: datetime, *, anew: bool = False) -> None:
        root, signers = self.files.newest_root(), self._keys.load()
        if root is None:
            signer = next(iter(signers.values()), None) or self._keys.make()
            root = self._write_root(first_root(signer.public_key), 0, [signer], now)
            signers = {signer.public_key.keyid: signer}
        signer = key_of(root.signed, signers)
        may_renew = root.signed.roles["root"].keyids == [signer.public_key.keyid]
        if may_renew and not is_fresh(root.signed, "root", now):
            root = self._write_root(root.signed, root.signed.version, [signer], now)
        self._sign_others(root.signed, [signer], offers, now, anew=anew)
        self.files.tidy()
        self._keys.tidy()
        for other in signers.keys() - {signer.public_key.keyid}:
            self._keys.remove(other)

    def _write_root(
        self, payload: Root, version: int, signers: list[CryptoSigner], now: datetime
    ) -> Metadata[Root]:
        return self.files.write("root", numbered(payload, version, "root", now), signers)

    def _sign_others(
        self,
        root: Root,
        signers: Sequence[CryptoSigner],
        offers: Mapping[str, bytes],
        now: datetime,
        *,
        anew: bool = False,
        offline: Mapping[str, Targets] = _NOTHING,
        free: bool = False,
    ) -> None:
        """Sign all but the root.

        Args:
            root: in force.
            signers: the online key, and the offline one where it is here.
            offers: as of `change`; of a channel that offline keys sign they do not count.
            now: UTC.
            anew: as of `sign`.
            offline: channel -> what the offline key is to sign for it.
            free: no channel is signed by offline keys any more.
        """
        current = self.files.current()
        before = current.get("targets")
        protected = {} if free else protected_by(before.signed if before else None)
        protected |= dict.fromkeys(offline, signers[-1].public_key)

        def signed(role: str, wanted: Payload, by: Any) -> Payload:
            """Return the payload that stands now, signed again where that is needed."""
            old = current.get(role)
            may = [s for s in signers if s.public_key.keyid in by.get_delegated_role(role).keyids]
            if (
                old is not None
                and is_signed_for(by, role, old)
                and (still_says(old.signed, wanted) or (not may and _is_older(old.signed, wanted)))
                and (not may or (is_fresh(old.signed, role, now) and not anew))
            ):
                return cast("Payload", old.signed)
            if not may:
                raise SettingsError(
                    f"{role} is signed by offline keys, and what they signed is lost or another; "
                    "`cloud-server keys renew DIR --keys KEYS` signs it again"
                )
            numbers = [*self.files.numbers(role), old.signed.version if old else 0]
            payload = numbered(wanted, max(numbers), role, now)
            self.files.write(role, payload, list(signers) if role == "targets" else may)
            return payload

        parts = {"targets": signed("targets", targets_for(signers[0].public_key, protected), root)}
        self.files.write_manifests(offers)
        for channel in protected:
            if channel in offline:
                wanted = offline[channel]
            elif channel in current:
                wanted = current[channel].signed
            else:
                raise SettingsError(f"what is signed of channel {channel} is lost or damaged")
            parts[channel] = signed(channel, wanted, parts["targets"])
        others = {name: one for name, one in offers.items() if signs_online(name, protected)}
        parts[ONLINE] = signed(ONLINE, offering(others), parts["targets"])
        snapshot = signed("snapshot", snapshot_for(parts, current.get("snapshot")), root)
        signed("timestamp", timestamp_for(snapshot), root)


def _is_older(signed: Any, wanted: Any) -> bool:
    return isinstance(wanted, Targets) and lacks_only_paths(signed, wanted)
