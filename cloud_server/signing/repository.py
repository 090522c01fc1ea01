"""The signed metadata of a store, as plain files that any web server may hand out.

metadata/1.root.json ...           all of them: a robot goes from the one it has to the newest
metadata/1796070000.targets.json   and so online and snapshot; the last few stay
metadata/timestamp.json            written last: with it robots see the new state
targets/stable/<sha256>.manifest.json

`sign` looks at what is there, and signs what is missing, was changed, does not fit, or is out of
date soon. So it is also what mends a signing that was cut short.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from cloud_server.signing.keys import SHOWN, OnlineKeys
from cloud_server.signing.roles import (
    ONLINE,
    first_root,
    is_fresh,
    manifest_names,
    numbered,
    online_for,
    prefixed,
    snapshot_for,
    still_says,
    targets_for,
    timestamp_for,
    with_key,
)
from fleet_model.bundle import sha256_of
from fleet_model.durable import remove_asides, write_durably
from fleet_model.errors import SettingsError
from fleet_model.protocol.routes import target_of

KEPT = 3  # files of one role: a robot may be between timestamp and snapshot
Payload = TypeVar("Payload", Targets, Snapshot, Timestamp)


class SignedStore:
    """Signs what channels offer; whoever changes it holds a lock, also against other processes."""

    def __init__(self, store: Path, keys: OnlineKeys) -> None:
        self._store, self._keys = store, keys
        self._metadata, self._targets = store / "metadata", store / "targets"

    def sign(self, offers: Mapping[str, bytes], now: datetime, *, anew: bool = False) -> None:
        """Make the signed metadata say what channels offer, and be fresh.

        Args:
            offers: channel -> manifest.
            now: UTC.
            anew: sign all again, with higher numbers: robots may have seen some that are not here.

        Raises:
            SettingsError: a key or a root is missing or damaged.
        """
        with self._changing():
            self._sign(offers, now, anew=anew)

    def rotate(self, offers: Mapping[str, bytes], now: datetime) -> tuple[str, str]:
        """Sign with a new key from now on; return the ids of the old and the new one.

        Robots follow by a root that both keys sign. The old key is deleted at the end.
        """
        with self._changing():
            self._sign(offers, now, anew=False)  # first: what was cut short before
            root, signers = self.newest_root(), self._keys.load()
            assert root is not None
            old, new = _key_of(root.signed, signers), self._keys.make()
            payload = with_key(root.signed, old.public_key.keyid, new.public_key)
            self._write_root(payload, root.signed.version, [old, new], now)
            self._sign(offers, now, anew=False)
            return old.public_key.keyid[:SHOWN], new.public_key.keyid[:SHOWN]

    def require_key(self) -> None:
        """Raise SettingsError unless the key that signs is here, or nothing is signed yet."""
        root = self.newest_root()
        if root is not None:
            _key_of(root.signed, self._keys.load())

    def newest_root(self) -> Metadata[Root] | None:
        """Return the newest root; None if nothing is signed here.

        Raises:
            SettingsError: it is damaged: another one in its place would shut robots out.
        """
        numbers = self._numbers("root")
        if not numbers:
            return None
        root = self._read(Root, "root", numbers[-1])
        if root is None or not _signed_for(root.signed, "root", root):
            raise SettingsError(
                f"{self._metadata / _named('root', numbers[-1])}: damaged; restore it from a backup"
            )
        return root

    def current(self) -> dict[str, Metadata[Any]]:
        """Return role -> what robots can get of it now; what is not there or damaged is left out.

        Raises SettingsError as `newest_root` does.
        """
        found: dict[str, Metadata[Any] | None] = {"root": self.newest_root()}
        timestamp = found["timestamp"] = self._read(Timestamp, "timestamp", 0)
        if timestamp is not None:
            version = timestamp.signed.snapshot_meta.version
            snapshot = found["snapshot"] = self._read(Snapshot, "snapshot", version)
            for name in ("targets", ONLINE):
                meta = snapshot.signed.meta.get(f"{name}.json") if snapshot else None
                found[name] = self._read(Targets, name, meta.version) if meta else None
        return {name: one for name, one in found.items() if one is not None}

    def _sign(self, offers: Mapping[str, bytes], now: datetime, *, anew: bool) -> None:
        root, signers = self.newest_root(), self._keys.load()
        if root is None:
            signer = next(iter(signers.values()), None) or self._keys.make()
            root = self._write_root(first_root(signer.public_key), 0, [signer], now)
            signers = {signer.public_key.keyid: signer}
        signer = _key_of(root.signed, signers)
        if not is_fresh(root.signed, "root", now):
            root = self._write_root(root.signed, root.signed.version, [signer], now)
        self._sign_others(root.signed, signer, offers, now, anew=anew)
        self._tidy()
        self._keys.tidy()
        for other in signers.keys() - {signer.public_key.keyid}:
            self._keys.remove(other)

    def _sign_others(
        self,
        root: Root,
        signer: CryptoSigner,
        offers: Mapping[str, bytes],
        now: datetime,
        *,
        anew: bool,
    ) -> None:
        current = self.current()

        def signed(role: str, wanted: Payload, by: Any) -> Payload:
            """Return the payload that stands now, signed again where that is needed."""
            before = current.get(role)
            if (
                before is not None
                and not anew
                and _signed_for(by, role, before)
                and still_says(before.signed, wanted)
                and is_fresh(before.signed, role, now)
            ):
                return cast("Payload", before.signed)
            numbers = [*self._numbers(role), before.signed.version if before else 0]
            payload = numbered(wanted, max(numbers), role, now)
            self._write(role, payload, [signer])
            return payload

        targets = signed("targets", targets_for(signer.public_key), root)
        self._write_manifests(offers)
        online = signed(ONLINE, online_for(offers), targets)
        snapshot = signed("snapshot", snapshot_for({"targets": targets, ONLINE: online}), root)
        signed("timestamp", timestamp_for(snapshot), root)

    def _write_manifests(self, offers: Mapping[str, bytes]) -> None:
        for channel, manifest in offers.items():
            file = self._targets / prefixed(target_of(channel), sha256_of(manifest))
            if not file.exists() or file.read_bytes() != manifest:
                write_durably(file, manifest)

    def _write_root(
        self, payload: Root, version: int, signers: list[CryptoSigner], now: datetime
    ) -> Metadata[Root]:
        return self._write("root", numbered(payload, version, "root", now), signers)

    def _write(self, role: str, payload: Any, signers: list[CryptoSigner]) -> Metadata[Any]:
        metadata = Metadata(payload)
        for signer in signers:
            metadata.sign(signer, append=True)
        write_durably(self._metadata / _named(role, payload.version), metadata.to_bytes())
        return metadata

    def _read(self, kind: type, role: str, version: int) -> Metadata[Any] | None:
        with suppress(OSError, DeserializationError):
            content = (self._metadata / _named(role, version)).read_bytes()
            found: Metadata[Any] = Metadata.from_bytes(content)
            if isinstance(found.signed, kind) and version in (0, cast("Any", found.signed).version):
                return found
        return None

    def _numbers(self, role: str) -> list[int]:
        """Return the versions of a role by their files' names, oldest first."""
        names = (path.name.partition(".") for path in self._metadata.glob(f"*.{role}.json"))
        return sorted(int(n) for n, _, end in names if n.isdecimal() and end == f"{role}.json")

    def _tidy(self) -> None:
        """Remove what no robot asks for any more."""
        for role in ("targets", ONLINE, "snapshot"):
            for number in self._numbers(role)[:-KEPT]:
                (self._metadata / _named(role, number)).unlink()
        kept = [self._read(Targets, ONLINE, number) for number in self._numbers(ONLINE)]
        names = manifest_names(one.signed for one in kept if one is not None)
        for file in self._targets.glob("*/*.json"):
            if str(file.relative_to(self._targets)) not in names:
                file.unlink()
        for folder in (self._metadata, *self._targets.glob("*")):
            remove_asides(folder)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self._store.mkdir(parents=True, exist_ok=True)
        with (self._store / ".signing.lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def online_key(root: Root) -> str:
    """Return the id of the key that the server signs with."""
    return root.roles["timestamp"].keyids[0]


def _key_of(root: Root, signers: Mapping[str, CryptoSigner]) -> CryptoSigner:
    keyid = online_key(root)
    if keyid not in signers:
        raise SettingsError(
            f"the key {keyid[:SHOWN]} that signs models is not in secrets/ any more; restore "
            f"signing-{keyid[:SHOWN]}.key from a backup"
        )
    return signers[keyid]


def _named(role: str, version: int) -> str:
    return f"{role}.json" if role == "timestamp" else f"{version}.{role}.json"


def _signed_for(by: Root | Targets, role: str, metadata: Metadata[Any]) -> bool:
    """Return whether the signatures are what one role asks of another."""
    try:
        by.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError):
        return False
    return True
