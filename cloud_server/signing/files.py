"""The files of what is signed, as any web server may hand them out.

metadata/1.root.json ...           all of them: a robot goes from the one it has to the newest
metadata/1796070000.targets.json   and so online and snapshot; the last few stay
metadata/timestamp.json            written last: with it robots see the new state
targets/stable/<sha256>.manifest.json
targets/stable/sites/hall-1/<sha256>.manifest.json
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from cloud_server.signing.roles import manifest_names
from fleet_model.bundle import parse_manifest, sha256_of
from fleet_model.durable import remove_asides, write_durably
from fleet_model.errors import BundleError, SettingsError
from fleet_model.protocol.routes import name_of, stored_target, target_of

KEPT = 3  # files of one role: a robot may be between timestamp and snapshot


class SignedFiles:
    """Reads and writes them; whoever writes holds the lock, also against other processes."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._metadata, self._targets = store / "metadata", store / "targets"

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock."""
        self._store.mkdir(parents=True, exist_ok=True)
        with (self._store / ".signing.lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def newest_root(self) -> Metadata[Root] | None:
        """Return the newest root; None if nothing is signed here.

        Raises:
            SettingsError: it is damaged: another one in its place would shut robots out.
        """
        numbers = self.numbers("root")
        if not numbers:
            return None
        root = self._read(Root, "root", numbers[-1])
        if root is None or not is_signed_for(root.signed, "root", root):
            raise SettingsError(
                f"{self._metadata / _named('root', numbers[-1])}: damaged; restore it from a backup"
            )
        return root

    def current(self) -> dict[str, Metadata[Any]]:
        """Return role -> what robots can get of it now; what is not there or damaged is left out.

        Nor is there a role that nobody delegates to any more: the snapshot names it for ever.

        Raises SettingsError as `newest_root` does.
        """
        found: dict[str, Metadata[Any] | None] = {"root": self.newest_root()}
        timestamp = found["timestamp"] = self._read(Timestamp, "timestamp", 0)
        if timestamp is not None:
            version = timestamp.signed.snapshot_meta.version
            snapshot = found["snapshot"] = self._read(Snapshot, "snapshot", version)
            for file, meta in snapshot.signed.meta.items() if snapshot else ():
                name = file.removesuffix(".json")
                found[name] = self._read(Targets, name, meta.version)
        targets = found.get("targets")
        if targets is not None and targets.signed.delegations is not None:
            others = {"root", "timestamp", "snapshot", "targets"}
            for name in found.keys() - others - set(targets.signed.delegations.roles or ()):
                del found[name]
        return {name: one for name, one in found.items() if one is not None}

    def numbers(self, role: str) -> list[int]:
        """Return the versions of a role by their files' names, oldest first."""
        names = (name.partition(".") for name in self._names(f"*.{role}.json"))
        return sorted(int(n) for n, _, end in names if n.isdecimal() and end == f"{role}.json")

    def write(self, role: str, payload: Any, signers: list[CryptoSigner]) -> Metadata[Any]:
        """Sign a role, and write it."""
        metadata = Metadata(payload)
        for signer in signers:
            metadata.sign(signer, append=True)
        write_durably(self._metadata / _named(role, payload.version), metadata.to_bytes())
        return metadata

    def write_manifests(self, offers: Mapping[str, bytes]) -> None:
        """Write what is named by the roles; `offers` are name -> manifest."""
        for name, manifest in offers.items():
            file = self._targets / stored_target(target_of(name), sha256_of(manifest))
            if not file.exists() or file.read_bytes() != manifest:
                write_durably(file, manifest)

    def everything(self) -> dict[str, bytes]:
        """Return every file that robots may ask for, by its name below the store."""
        found = {}
        with self.changing():
            for folder in (self._metadata, self._targets):
                for file in folder.rglob("*.json"):
                    if file.name[0] != ".":
                        found[str(file.relative_to(self._store))] = file.read_bytes()
        return found

    def _version_of(self, target: str, sha256: str) -> int | None:
        """Return the version in a signed manifest; None if it is lost or damaged."""
        with suppress(OSError, BundleError):
            content = (self._targets / stored_target(target, sha256)).read_bytes()
            return parse_manifest(content).version
        return None

    def named(self) -> set[str]:
        """Return the files of manifests, below targets/, that are signed now."""
        current = (one.signed for one in self.current().values())
        return manifest_names(one for one in current if isinstance(one, Targets))

    def offers_of(self, role: Any) -> dict[str, int | None]:
        """Return channel, or part of one -> version that a role names; none but of Targets."""
        targets = role.targets if isinstance(role, Targets) else {}
        return {
            name_of(path): self._version_of(path, target.hashes["sha256"])
            for path, target in targets.items()
            if name_of(path) != path  # else it is no manifest: the plan or the stage of a rollout
        }

    def tidy(self) -> None:
        """Remove what no robot asks for any more."""
        roles = {name.split(".")[1] for name in self._names("*.*.json")} - {"root"}
        for role in roles:
            for number in self.numbers(role)[:-KEPT]:
                (self._metadata / _named(role, number)).unlink()
        say = ((role, number) for role in roles - {"snapshot"} for number in self.numbers(role))
        kept = [self._read(Targets, role, number) for role, number in say]
        names = manifest_names(one.signed for one in kept if one is not None)
        for file in self._targets.rglob("*.json"):
            if str(file.relative_to(self._targets)) not in names and file.name[0] != ".":
                file.unlink()
        for folder in (self._metadata, *self._targets.rglob("*/")):
            remove_asides(folder)

    def _read(self, kind: type, role: str, version: int) -> Metadata[Any] | None:
        with suppress(OSError, DeserializationError):
            content = (self._metadata / _named(role, version)).read_bytes()
            found: Metadata[Any] = Metadata.from_bytes(content)
            if isinstance(found.signed, kind) and version in (0, cast("Any", found.signed).version):
                return found
        return None

    def _names(self, pattern: str) -> list[str]:
        return [path.name for path in self._metadata.glob(pattern) if path.name[0] != "."]


def _named(role: str, version: int) -> str:
    return f"{role}.json" if role == "timestamp" else f"{version}.{role}.json"


def is_signed_for(by: Root | Targets, role: str, metadata: Metadata[Any]) -> bool:
    """Return whether the signatures are what one role asks of another."""
    try:
        by.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError):
        return False
    return True
