"""Install a published bundle next to the running one, then switch to it in one step.

  <models>/objects/<sha256>      every file by content, fetched once
  <models>/versions/000005/      manifest.json and the engine's files (hard links to objects)
  <models>/current -> versions/000005

A power cut at any point leaves `current` on a complete, verified version.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from fleet_model.bundle import (
    MANIFEST,
    TRAINER,
    FileEntry,
    Manifest,
    TrainerSpec,
    parse_trainer,
    read_bundle,
    require_file,
    to_json,
)
from fleet_model.durable import fsync_directory, point_durably, write_durably
from fleet_model.errors import BundleError
from fleet_model.store import ModelStore


class Models:
    """The models of one robot."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def current(self) -> Path:
        """The directory of the active bundle."""
        return self._root / "current"

    def active(self) -> Manifest | None:
        """Return the active manifest, or None before the first install."""
        return read_bundle(self.current, ()) if (self.current / MANIFEST).exists() else None

    def install(self, store: ModelStore, manifest: Manifest, precision: str) -> None:
        """Fetch what is missing, verify everything, switch.

        Raises:
            BundleError: a file is not what the manifest says; the active version stays.
            ConnectionFailed: the server went away; what was fetched is kept for the next try.
        """
        needed = manifest.needed(precision)
        directory = self._root / "versions" / f"{manifest.version:06d}"
        self._assemble(directory, needed, store)
        write_durably(directory / MANIFEST, to_json(manifest))
        read_bundle(directory, needed)
        point_durably(self.current, f"versions/{directory.name}")
        self._collect()

    def trainer(self, store: ModelStore, entry: FileEntry, part: str) -> tuple[TrainerSpec, Path]:
        """Return a trainer specification and the directory of its verified files.

        Args:
            store: where missing files come from.
            entry: trainer.json as the train message names it.
            part: "litert" or "keras".

        Raises:
            BundleError: a file is damaged, or the trainer has no such part.
        """
        directory = self._root / "trainers" / f"{entry.sha256[:16]}-{part}"
        self._assemble(directory, {TRAINER: entry}, store)
        spec = parse_trainer((directory / TRAINER).read_bytes())
        if part not in spec.parts:
            raise BundleError(
                f"{spec.trainable!r} of {spec.workload.name} cannot be trained with {part!r}; set "
                f"training.trainer to one of: {', '.join(sorted(spec.parts))}"
            )
        self._assemble(directory, {name: spec.files[name] for name in spec.parts[part]}, store)
        return spec, directory

    def _assemble(self, directory: Path, files: Mapping[str, FileEntry], store: ModelStore) -> None:
        """Put files under their names; each is a verified object, fetched if it is not here."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, entry in files.items():
            target, source = directory / name, self._root / "objects" / entry.sha256
            if _intact(target, entry):
                continue
            if not _intact(source, entry):
                store.fetch(entry.sha256, entry.size_bytes, source)
                require_file(source, entry)
            target.unlink(missing_ok=True)
            os.link(source, target)
        fsync_directory(directory)

    def _collect(self) -> None:
        """Remove versions but the active and the one before, and objects nothing links to."""
        versions = sorted(p for p in (self._root / "versions").iterdir() if p.is_dir())
        active = self.current.resolve()
        older = [p for p in versions if p.name < active.name][-1:]
        for path in versions:
            if path != active and path not in older:
                shutil.rmtree(path)
        for path in (self._root / "objects").iterdir():
            if path.stat().st_nlink == 1:
                path.unlink()


def _intact(path: Path, entry: FileEntry) -> bool:
    try:
        require_file(path, entry)
    except BundleError:
        return False
    return True
