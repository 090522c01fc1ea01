"""Put a published bundle next to the running one, then switch to it in one step, or back.

  <models>/objects/<sha256>              every file by content, fetched once
  <models>/versions/000005-<manifest>/   manifest.json, the engine's files (hard links to objects)
  <models>/channels/stable -> ../versions/000005-<manifest>, see channels.py
  <models>/current -> versions/000005-<manifest>, of the channel that is followed

On FAT and exFAT there are no links. Files are copied, `current` is a file that holds the name, and
objects are only kept until they are copied.

A power cut at any point leaves `current` on a complete, verified version. It follows the channel's
pointer, which changes first; the next start corrects it. <manifest> is the start of the manifest's
own sha256: a server that was set up again counts its versions from 0, and its
version must never be put together inside the active one.
"""

import errno
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edge_agent.models.channels import Channels, named
from fleet_model.bundle import (
    MANIFEST,
    TRAINER,
    FileEntry,
    Offer,
    TrainerSpec,
    parse_trainer,
    read_bundle,
    read_offer,
    require_file,
    sha256_of,
)
from fleet_model.durable import (
    fsync_directory,
    link_or_copy,
    make_directory,
    point_durably,
    pointed,
    remove_asides,
    write_durably,
)
from fleet_model.errors import BundleError, StorageError
from fleet_model.store import PART, ModelStore

PERMIT = "let the agent's user write there"
ADVICE = {
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room in the quota of the agent's user",
    errno.EACCES: PERMIT,
    errno.EPERM: PERMIT,
    errno.EROFS: "mount its disk so that the agent's user can write there",
}
PART_KEPT_S = 7 * 86400.0  # since the last byte of a download


class Models:
    """The models of one robot, which follows `channel`; other channels keep what they have."""

    def __init__(self, root: Path, channel: str = "stable") -> None:
        self._root = root
        self._channels = Channels(root, channel)

    @property
    def current(self) -> Path:
        """The directory of the bundle in use: the followed channel's, once it has one."""
        return pointed(self._root / "current")

    def active(self, precision: str) -> Offer | None:
        """Return the channel's manifest with its bytes, in use from now on.

        None before the first install from this channel: `current` stays on another channel's.

        Raises:
            BundleError: a file that `precision` needs is damaged or missing; `install` repairs it.
            StorageError: it cannot be read.
        """
        with self.disk():
            self._adopt()
            name = self._channels.active()
            directory = self.folder(name)
            if not name or not (directory / MANIFEST).exists():
                return None
            offer = read_offer((directory / MANIFEST).read_bytes())
            read_bundle(directory, offer.manifest.needed(precision))
            self._use(name)
            return offer

    def version_in_use(self) -> int | None:
        """Return the version of `current`, whichever channel it came from; None without one.

        Raises:
            BundleError: its manifest is damaged.
            StorageError: it cannot be read.
        """
        with self.disk():
            path = self.current / MANIFEST
            return read_offer(path.read_bytes()).manifest.version if path.exists() else None

    def install(self, store: ModelStore, offer: Offer, precision: str) -> None:
        """Stage and activate in one; raises as `stage`."""
        self.activate(self.stage(store, offer, precision))

    def stage(self, store: ModelStore, offer: Offer, precision: str) -> str:
        """Fetch what is missing and verify everything; the manifest is kept as it came.

        Returns:
            The version's name, for `activate` and `folder`.

        Raises:
            BundleError: a file is not what the manifest says.
            ConnectionFailed: the server went away; what was fetched is kept for the next try.
            StorageError: the disk is full or cannot be written.
        """
        needed = offer.manifest.needed(precision)
        name = name_of(offer)
        directory = self.folder(name)
        with self.disk():
            self._adopt()
            self._assemble(directory, needed, store)
            write_durably(directory / MANIFEST, offer.content)  # makes the links durable, too
            read_bundle(directory, needed)
        return name

    def activate(self, name: str, good: str = "") -> None:
        """Switch to a staged version; `good` is the one to go back to, "" the one before.

        Raises:
            StorageError: the disk is full or cannot be written; the active version stays.
        """
        with self.disk():
            before = self._channels.active()
            self._channels.activate(name, good)
            self._use(name)
            if name != before:  # else it was repaired
                self._collect(keep={name, *self._channels.versions()})

    def go_back(self, precision: str) -> None:
        """Switch to the previous version; the one that was active is removed.

        Raises:
            BundleError: there is none, or it is damaged; the active version stays.
            StorageError: the disk cannot be written; go on with `go_back` when it can.
        """
        previous = self.require_previous(precision)
        with self.disk():
            self._channels.go_back()
            self._use(previous)
            self._collect(keep=self._channels.versions())

    def require_previous(self, precision: str) -> str:
        """Return the name of the version that `go_back` switches to; raises BundleError as it."""
        previous = self._channels.previous()
        if not previous or previous == self.active_name:
            raise BundleError("there is no version to go back to")
        with self.disk():
            manifest = read_bundle(self.folder(previous), names=())
            read_bundle(self.folder(previous), manifest.needed(precision))
        return previous

    def discard(self, names: Collection[str]) -> None:
        """Remove versions, if they are here and not used, and what else is; raises StorageError."""
        with self.disk():
            used = self._channels.versions()
            if any(self.folder(name).exists() for name in set(names) - used):
                self._collect(keep=used)

    def tidy(self) -> None:
        """Remove what a killed agent has written aside; for whoever changes the pointers."""
        for folder in (self._root, self._channels.folder, *(self._root / "versions").glob("*")):
            remove_asides(folder)

    @property
    def active_name(self) -> str:
        """The name of the followed channel's version; "" if it has none."""
        return self._channels.active()

    def folder(self, name: str) -> Path:
        """Return the bundle directory of a version by its name."""
        return self._root / "versions" / name

    def add_files(self, name: str, files: Mapping[str, FileEntry], store: ModelStore) -> None:
        """Put further published files into the folder of a version; raises as `stage`.

        Their names are safe when the caller has synced the folder.
        """
        with self.disk():
            self._assemble(self.folder(name), files, store)

    def trainer(self, store: ModelStore, entry: FileEntry, part: str) -> tuple[TrainerSpec, Path]:
        """Return a trainer specification and the directory of its verified files.

        Args:
            store: where missing files come from.
            entry: trainer.json as the train message names it.
            part: "litert" or "keras"; a plug-in, "module:Class", is given every file.

        Raises:
            BundleError: a file is damaged, or the trainer has no such part.
            StorageError: the disk is full or cannot be written.
        """
        directory = self._root / "trainers" / f"{entry.sha256[:16]}-{part.replace(':', '.')}"
        with self.disk():
            self._assemble(directory, {TRAINER: entry}, store)
            spec = parse_trainer((directory / TRAINER).read_bytes())
            names = spec.parts.get(part, tuple(spec.files) if ":" in part else ())
            if not names:
                raise BundleError(
                    f"{spec.trainable!r} of {spec.workload.name} cannot be trained with {part!r}; "
                    f"set training.trainer to one of: {', '.join(sorted(spec.parts))}"
                )
            self._assemble(directory, {name: spec.files[name] for name in names}, store)
            self._adopt()
            self._channels.train_with(directory.name)
            used = self._channels.trainers()
            for other in directory.parent.iterdir():  # a channel has one trainer at a time
                if other.name not in used:
                    _hand_over(other, directory)
                    shutil.rmtree(other)
        return spec, directory

    def _adopt(self) -> None:
        if (self.current / MANIFEST).exists():
            self._channels.adopt(named(self._root / "current"))

    def _use(self, name: str) -> None:
        if named(self._root / "current") != name:
            point_durably(self._root / "current", f"versions/{name}")

    @contextmanager
    def disk(self) -> Iterator[None]:
        """Say what to do about a disk; the reason may travel, so it holds no path."""
        try:
            yield
        except OSError as error:
            advice = ADVICE.get(
                error.errno or 0, "check that disk, and that the agent's user may write there"
            )
            raise StorageError(
                f"the robot's model directory: {error.strerror or error}; {advice}. The active "
                "version stays"
            ) from error

    def _assemble(self, directory: Path, files: Mapping[str, FileEntry], store: ModelStore) -> None:
        """Put files under their names; each is a verified object, fetched if it is not here."""
        make_directory(directory)
        make_directory(self._root / "objects")
        for name, entry in files.items():
            target, source = directory / name, self._root / "objects" / entry.sha256
            if _intact(target, entry):
                continue
            if not _intact(source, entry):
                self._restore(source, entry, store)
            target.unlink(missing_ok=True)
            link_or_copy(source, target)

    def _restore(self, source: Path, entry: FileEntry, store: ModelStore) -> None:
        """Put a missing object in its place: from an installed version, else from the store."""
        for installed in self._installed(entry):
            source.unlink(missing_ok=True)
            link_or_copy(installed, source)
            return
        store.fetch(entry.sha256, entry.size_bytes, source)
        require_file(source, entry)

    def _installed(self, entry: FileEntry) -> Iterator[Path]:
        """Yield intact files of installed versions that are this object."""
        for path in (self._root / "versions").glob(f"*/{MANIFEST}"):
            try:
                files = read_offer(path.read_bytes()).manifest.files
            except BundleError:  # a version that was never whole
                continue
            for name, other in files.items():
                if other == entry and _intact(path.with_name(name), entry):
                    yield path.with_name(name)

    def _collect(self, keep: Collection[str]) -> None:
        """Remove versions but those of `keep`, and objects nothing links to.

        A part of the trainer's files stays, for its download to be continued; an old one goes.
        """
        gone = [path for path in (self._root / "versions").iterdir() if path.name not in keep]
        links = Counter(file.stat().st_ino for folder in gone for file in folder.iterdir())
        for path in (self._root / "objects").iterdir():  # first: the folders say what is to do
            status = path.stat()
            is_young = time.time() - status.st_mtime < PART_KEPT_S
            unused = status.st_nlink - links[status.st_ino] == 1
            if unused and not (path.suffix == PART and is_young):
                path.unlink()
        if gone:  # a power cut must not bring an object back when its folder is gone
            fsync_directory(self._root / "objects")
        for folder in gone:
            shutil.rmtree(folder)


def name_of(offer: Offer) -> str:
    """Return the name of a version on this robot: number and content."""
    return f"{offer.manifest.version:06d}-{sha256_of(offer.content)[:8]}"


def _hand_over(before: Path, after: Path) -> None:
    """Give a trainer what the one before it has kept in folders, for it to use what still holds.

    With other labels it is another trainer, and its frozen features are the same.
    """
    if before.name.partition("-")[2] != after.name.partition("-")[2]:
        return  # of another kind
    for folder in before.iterdir():
        if folder.is_dir() and not (after / folder.name).exists():
            folder.rename(after / folder.name)


def _intact(path: Path, entry: FileEntry) -> bool:
    try:
        require_file(path, entry)
    except BundleError:
        return False
    return True
