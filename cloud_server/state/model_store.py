"""Published models on the server: objects by sha256, manifests by version, channels by name."""

import json
import shutil
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
from fleet_model.durable import write_durably, writing
from fleet_model.errors import BundleError


class DirectoryStore:
    """<root>/objects/<sha256>, <root>/versions/000005.json, <root>/channels/stable.json."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(self, bundle: Path, channel: str, trainer_files: Path) -> Manifest:
        """Make `bundle` the newest model of `channel`.

        Args:
            bundle: directory with manifest.json, trainer.json and every file of the manifest.
            channel: the channel's file is written last: robots see a whole version or the old one.
            trainer_files: directory that holds the files that trainer.json lists.
        """
        manifest = read_bundle(bundle)
        for name, entry in manifest.files.items():
            self._add(bundle / name, entry)
        self._add(bundle / TRAINER, manifest.trainer)
        trainer = (self._root / "objects" / manifest.trainer.sha256).read_bytes()
        for name, entry in parse_trainer(trainer).files.items():
            self._add(trainer_files / name, entry)
        name = f"{manifest.version:06d}.json"
        write_durably(self._root / "versions" / name, (bundle / MANIFEST).read_bytes())
        channel_file = json.dumps({"version": manifest.version})
        write_durably(self._root / "channels" / f"{channel}.json", channel_file)
        return manifest

    def latest_bytes(self, channel: str) -> bytes | None:
        """Return the newest manifest of a channel as published; None if there is none."""
        try:
            version = json.loads((self._root / "channels" / f"{channel}.json").read_text())[
                "version"
            ]
        except FileNotFoundError:
            return None
        return (self._root / "versions" / f"{version:06d}.json").read_bytes()

    def latest(self, channel: str) -> Offer | None:
        """Return the newest manifest of a channel."""
        content = self.latest_bytes(channel)
        return None if content is None else read_offer(content)

    def versions(self) -> list[Manifest]:
        """Return every published manifest, oldest first."""
        files = sorted((self._root / "versions").glob("*.json"))
        return [parse_manifest(file.read_bytes()) for file in files]

    def channels(self) -> dict[str, int]:
        """Return channel -> version."""
        files = sorted((self._root / "channels").glob("*.json"))
        return {file.stem: int(json.loads(file.read_text())["version"]) for file in files}

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

    def _add(self, file: Path, entry: FileEntry) -> None:
        """Copy a file in unless its content is there already, undamaged."""
        target = self._root / "objects" / entry.sha256
        try:
            require_file(target, entry)
        except BundleError:
            require_file(file, entry)
            with file.open("rb") as stream, writing(target) as copy:
                shutil.copyfileobj(stream, copy)
