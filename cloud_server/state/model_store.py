"""Published models on the server: objects by sha256, manifests by version, channels by name."""

import fcntl
import json
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fleet_model.bundle import (
    MANIFEST,
    TRAINER,
    FileEntry,
    Manifest,
    Offer,
    parse_manifest,
    parse_trainer,
    read_bundle,
    read_offer,
    require_file,
)
from fleet_model.durable import fsync_directory, write_durably, writing
from fleet_model.errors import BundleError


class DirectoryStore:
    """<root>/objects/<sha256>, <root>/versions/000005.json, <root>/channels/stable.json, pins.json.

    Whoever changes it holds a lock, also against other processes: pruning deletes no object that a
    version needs which is being published.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(self, bundle: Path, channel: str, trainer_files: Path) -> Manifest:
        """Make `bundle` the newest model of `channel`.

        Args:
            bundle: directory with manifest.json, trainer.json and every file of the manifest.
            channel: the channel's file is written last: robots see a whole version or the old one.
            trainer_files: directory that holds the files that trainer.json lists.
        """
        with self._changing():
            return self._publish(bundle, channel, trainer_files)

    def _publish(self, bundle: Path, channel: str, trainer_files: Path) -> Manifest:
        manifest = read_bundle(bundle)
        for name, entry in manifest.files.items():
            self._add(bundle / name, entry)
        self._add(bundle / TRAINER, manifest.trainer)
        trainer = (self._root / "objects" / manifest.trainer.sha256).read_bytes()
        for name, entry in parse_trainer(trainer).files.items():
            self._add(trainer_files / name, entry)
        write_durably(self._manifest(manifest.version), (bundle / MANIFEST).read_bytes())
        channel_file = json.dumps({"version": manifest.version})
        write_durably(self._root / "channels" / f"{channel}.json", channel_file)
        return manifest

    def latest_bytes(self, channel: str) -> bytes | None:
        """Return the newest manifest of a channel as published; None if there is none.

        Raises:
            BundleError: the channel's file is damaged.
        """
        try:
            version = _version_of(self._root / "channels" / f"{channel}.json")
        except FileNotFoundError:
            return None
        return self._manifest(version).read_bytes()

    def latest(self, channel: str) -> Offer | None:
        """Return the newest manifest of a channel."""
        content = self.latest_bytes(channel)
        return None if content is None else read_offer(content)

    def versions(self) -> list[Manifest]:
        """Return every published manifest, oldest first."""
        found = []
        for version in self._published():
            with suppress(FileNotFoundError):  # a running server has just deleted it
                found.append(parse_manifest(self._manifest(version).read_bytes()))
        return found

    def channels(self) -> dict[str, int]:
        """Return channel -> version; raises BundleError if the file of one is damaged."""
        files = sorted((self._root / "channels").glob("*.json"))
        return {file.stem: _version_of(file) for file in files}

    def pins(self) -> set[int]:
        """Return the versions that stay until they are unpinned.

        Raises:
            BundleError: pins.json is damaged.
        """
        path = self._root / "pins.json"
        try:
            return {int(version) for version in json.loads(path.read_text())["versions"]}
        except FileNotFoundError:
            return set()
        except (ValueError, TypeError, KeyError):
            raise BundleError(
                f"{path}: damaged; restore it from a backup, or remove it and pin versions again "
                "with `cloud-server models pin DIR VERSION`"
            ) from None

    def pin(self, version: int) -> None:
        """Keep a published version however many newer ones there are.

        Raises:
            BundleError: it is not published, or pins.json is damaged.
        """
        with self._changing():
            if version not in self._published():
                raise BundleError(
                    f"version {version} is not published; `cloud-server models list` shows the "
                    "versions"
                )
            self._write_pins(self.pins() | {version})

    def unpin(self, version: int) -> None:
        """Let a version be pruned when it is old; raises BundleError if it is not pinned."""
        with self._changing():
            pins = self.pins()
            if version not in pins:
                raise BundleError(f"version {version} is not pinned")
            self._write_pins(pins - {version})

    def prune(self, keep: int, also: Collection[int] = ()) -> list[int]:
        """Delete old versions and the objects that none of the others names; return what is gone.

        The newest `keep` stay, and what is pinned, what a channel offers, what is in `also`. A
        version goes before its objects: killed in between, the next call deletes the rest.

        Raises:
            BundleError: pins.json, a channel, or the manifest or trainer of a version that stays,
                is damaged; nothing that might be needed was deleted.
        """
        with self._changing():
            published = self._published()
            stay = {*published[-keep:], *self.pins(), *self.channels().values(), *also}
            needed = self._objects_of(version for version in published if version in stay)
            gone = [version for version in published if version not in stay]
            for version in gone:
                self._manifest(version).unlink()
            if gone:
                fsync_directory(self._root / "versions")
            for path in (self._root / "objects").iterdir():
                if path.name not in needed:  # also what a process that was killed wrote aside
                    path.unlink()
        return gone

    def object(self, sha256: str) -> Path | None:
        """Return the file with this content, or None."""
        path = self._root / "objects" / sha256
        return path if path.is_file() else None

    def fetch(self, sha256: str, size_bytes: int, into: Path) -> int:
        """Copy one file out; see ModelStore."""
        source = self.object(sha256)
        if source is None:
            raise BundleError(f"object {sha256[:12]} is not in the store")
        require_file(source, FileEntry(sha256=sha256, size_bytes=size_bytes))
        with source.open("rb") as stream, writing(into) as target:
            shutil.copyfileobj(stream, target)
        return size_bytes

    def _published(self) -> list[int]:
        """Return the versions by their files' names, oldest first."""
        names = (path.stem for path in (self._root / "versions").glob("*.json"))
        return sorted(int(name) for name in names if name.isdecimal() and name.isascii())

    def _manifest(self, version: int) -> Path:
        return self._root / "versions" / f"{version:06d}.json"

    def _objects_of(self, versions: Iterable[int]) -> set[str]:
        """Return the sha256 of every file that these versions and their trainers need."""
        needed = set()
        for version in versions:
            manifest = parse_manifest(self._manifest(version).read_bytes())
            needed |= {entry.sha256 for entry in manifest.files.values()}
            trainer = self._root / "objects" / manifest.trainer.sha256
            if manifest.trainer.sha256 not in needed:  # versions share it
                require_file(trainer, manifest.trainer)
                files = parse_trainer(trainer.read_bytes()).files.values()
                needed |= {manifest.trainer.sha256, *(entry.sha256 for entry in files)}
        return needed

    def _write_pins(self, pins: Collection[int]) -> None:
        write_durably(self._root / "pins.json", json.dumps({"versions": sorted(pins)}) + "\n")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / ".lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _add(self, file: Path, entry: FileEntry) -> None:
        """Copy a file in unless its content is there already, undamaged."""
        target = self._root / "objects" / entry.sha256
        try:
            require_file(target, entry)
        except BundleError:
            require_file(file, entry)
            with file.open("rb") as stream, writing(target) as copy:
                shutil.copyfileobj(stream, copy)


def _version_of(channel: Path) -> int:
    try:
        return int(json.loads(channel.read_text())["version"])
    except (ValueError, TypeError, KeyError):
        raise BundleError(
            f"{channel}: damaged; restore it from a backup, or remove it: the next run that "
            "publishes writes it again"
        ) from None
