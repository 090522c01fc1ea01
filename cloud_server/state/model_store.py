"""Published models on the server: objects by sha256, manifests by version, channels by name.

Every lineage counts its own versions (see ServerDirectory); "" is the first one. A channel names a
version and its lineage, so that a version is stored once however many channels offer it.
"""

import fcntl
import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cloud_server.state.offers.offer_files import OfferFiles
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
    to_json,
)
from fleet_model.durable import fsync_directory, remove_asides, write_durably, writing
from fleet_model.errors import BundleError


class DirectoryStore:
    """Files by content, manifests by lineage and version, and what each channel offers.

    objects/<sha256>
    versions/000005.json           of the first lineage
    versions/detector/000005.json  of another one
    channels/stable.json           {"version": 5}: see offers/offer_files.py
    pins.json                      {"versions": [3], "lineages": {"detector": [1]}}

    Whoever changes it holds a lock, also against other processes: pruning deletes no object that a
    version needs which is being published.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._offers = root, OfferFiles(root / "channels")

    def publish(
        self, bundle: Path, channel: str, trainer_files: Path, lineage: str = ""
    ) -> Manifest:
        """Make `bundle` the newest model of `channel`.

        Args:
            bundle: directory with manifest.json, trainer.json and every file of the manifest.
            channel: the channel's file is written last: robots see a whole version or the old one.
            trainer_files: directory that holds the files that trainer.json lists.
            lineage: whose version it is.
        """
        manifest = self.add(bundle, trainer_files, lineage)
        self.offer(channel, manifest.version, lineage)
        return manifest

    def add(self, bundle: Path, trainer_files: Path, lineage: str = "") -> Manifest:
        """Keep `bundle` as `publish` does; no channel offers it yet."""
        with self._changing():
            return self._add_version(bundle, trainer_files, lineage)

    def reissue(
        self,
        version: int,
        number: int,
        created_at: str,
        lineage: str = "",
        back_to: int | None = None,
    ) -> Manifest:
        """Keep a published version under another number, too; no file is copied, none offered.

        Robots are told `back_to`, the version that a person takes the fleet back to. Raises
        BundleError if it is not published, or lacks files.
        """
        with self._changing():
            content = self.require(version, lineage)
            if lacking := self.lacking(version, lineage, read=True):
                raise BundleError(
                    f"version {version} lacks {', '.join(lacking)}; `cloud-server repair DIR` "
                    "exports it again"
                )
            about = {"version": number, "created_at": created_at, "rolls_back_to": back_to}
            manifest = parse_manifest(content).model_copy(update=about)
            write_durably(self._manifest(number, lineage), to_json(manifest))
            return manifest

    def offer(self, name: str, version: int, lineage: str = "") -> None:
        """Make a published version the newest of a channel, or of a site on it; nothing is copied.

        Raises:
            BundleError: it is not published.
        """
        with self._changing():
            self._require_published(version, lineage)
            self._offers.write(name, version, lineage)

    def withdraw(self, name: str) -> None:
        """Offer nothing under a name any more; raises FileNotFoundError if nothing is."""
        with self._changing():
            self._offers.remove(name)

    def keep(self, file: Path, entry: FileEntry) -> None:
        """Keep a file that no version names yet, until the next pruning; raises BundleError."""
        with self._changing():
            self._add(file, entry)

    def _add_version(self, bundle: Path, trainer_files: Path, lineage: str) -> Manifest:
        manifest = read_bundle(bundle)
        for name, entry in manifest.files.items():
            self._add(bundle / name, entry)
        self._add(bundle / TRAINER, manifest.trainer)
        trainer = (self.root / "objects" / manifest.trainer.sha256).read_bytes()
        for name, entry in parse_trainer(trainer).files.items():
            self._add(trainer_files / name, entry)
        write_durably(self._manifest(manifest.version, lineage), (bundle / MANIFEST).read_bytes())
        return manifest

    def latest_bytes(self, name: str) -> bytes | None:
        """Return the newest manifest of a channel, or of a site on it; None if there is none.

        Raises:
            BundleError: the file of the offer is damaged.
        """
        try:
            version, lineage = self._offers.read(name)
        except FileNotFoundError:
            return None
        return self._manifest(version, lineage).read_bytes()

    def require(self, version: int, lineage: str = "") -> bytes:
        """Return a manifest as published; raises BundleError if there is none."""
        self._require_published(version, lineage)
        return self._manifest(version, lineage).read_bytes()

    def latest(self, channel: str) -> Offer | None:
        """Return the newest manifest of a channel."""
        return read_offer(one) if (one := self.latest_bytes(channel)) is not None else None

    def lineages(self) -> list[str]:
        """Return whose versions there are, the first lineage first."""
        folders = (self.root / "versions").glob("*/")
        return ["", *sorted(folder.name for folder in folders if folder.is_dir())]

    def versions(self, lineage: str = "") -> list[Manifest]:
        """Return every published manifest of a lineage, oldest first."""
        found = []
        for version in self.published(lineage):
            with suppress(FileNotFoundError):  # a running server has just deleted it
                found.append(parse_manifest(self._manifest(version, lineage).read_bytes()))
        return found

    def channels(self) -> dict[str, int]:
        """Return channel -> version; raises BundleError if the file of one is damaged."""
        return {name: version for name, (version, _) in self.offers().items() if "/" not in name}

    def offers(self) -> dict[str, tuple[int, str]]:
        """Return name -> (version, lineage), also of sites; raises BundleError as `channels`."""
        return self._offers.all()

    def pins(self, lineage: str = "") -> set[int]:
        """Return the versions of a lineage that stay until they are unpinned.

        Raises:
            BundleError: pins.json is damaged.
        """
        return self._pins().get(lineage, set())

    def _pins(self) -> dict[str, set[int]]:
        path = self.root / "pins.json"
        try:
            fields = json.loads(path.read_text())
            pins = {"": fields["versions"], **fields.get("lineages", {})}
            return {name: {int(version) for version in pins[name]} for name in pins}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BundleError(
                f"{path}: damaged; restore it from a backup, or remove it and pin versions again "
                "with `cloud-server models pin DIR VERSION`"
            ) from None

    def pin(self, version: int, lineage: str = "") -> None:
        """Keep a published version however many newer ones there are.

        Raises:
            BundleError: it is not published, or pins.json is damaged.
        """
        with self._changing():
            self._require_published(version, lineage)
            self._write_pins(lineage, self.pins(lineage) | {version})

    def unpin(self, version: int, lineage: str = "") -> None:
        """Let a version be pruned when it is old; raises BundleError if it is not pinned."""
        with self._changing():
            pins = self.pins(lineage)
            if version not in pins:
                raise BundleError(f"version {version} is not pinned")
            self._write_pins(lineage, pins - {version})

    def prune(self, keep: int, also: Collection[int] = ()) -> list[int]:
        """Delete old versions and the objects that none of the others names; return what is gone.

        The newest `keep` of each lineage stay, and what is pinned, what a channel offers, and the
        numbers in `also` of every lineage: a robot does not tell whose version it has. A version
        goes before its objects: killed in between, the next call deletes the rest.

        Raises:
            BundleError: pins.json, a channel, or the manifest or trainer of a version that stays,
                is damaged; nothing that might be needed was deleted.
        """
        with self._changing():
            pins, offers = self._pins(), set(self.offers().values())
            stay, gone = list[Path](), list[Path]()
            for lineage in self.lineages():
                published = self.published(lineage)
                kept = {*published[-keep:], *pins.get(lineage, ()), *also}
                for version in published:
                    stays = version in kept or (version, lineage) in offers
                    (stay if stays else gone).append(self._manifest(version, lineage))
            needed = self.objects_of(stay)
            for manifest in gone:
                manifest.unlink()
            for folder in {manifest.parent for manifest in gone}:
                fsync_directory(folder)
            for path in (self.root / "objects").iterdir():
                if path.name not in needed:  # also what a process that was killed wrote aside
                    path.unlink()
            for name in ("", *(f"versions/{one}" for one in self.lineages())):
                remove_asides(self.root / name)
            self._offers.tidy()
        return sorted(int(manifest.stem) for manifest in gone)

    def lacking(self, version: int, lineage: str = "", *, read: bool = False) -> list[str]:
        """Return the names of files that a version needs and the store does not have whole.

        Args:
            version: of the lineage.
            lineage: whose version it is.
            read: whether files are read, too; else only their sizes are compared.
        """
        try:
            manifest = parse_manifest(self._manifest(version, lineage).read_bytes())
        except (OSError, BundleError):
            return [MANIFEST]
        found = self._lacking({**manifest.files, TRAINER: manifest.trainer}, read=read)
        if TRAINER not in found:
            trainer = (self.root / "objects" / manifest.trainer.sha256).read_bytes()
            found += self._lacking(parse_trainer(trainer).files, read=read)
        return sorted(set(found))

    def _lacking(self, entries: Mapping[str, FileEntry], *, read: bool) -> list[str]:
        found = []
        for name, entry in entries.items():
            path = self.root / "objects" / entry.sha256
            try:
                is_whole = path.stat().st_size == entry.size_bytes
                if is_whole and read:
                    require_file(path, entry)
            except (OSError, BundleError):
                is_whole = False
            if not is_whole:
                found.append(name)
        return found

    def remove(self, version: int, lineage: str = "") -> None:
        """Forget a version that no channel offers; `prune` deletes its files."""
        with self._changing():
            if (version, lineage) not in self.offers().values():
                self._manifest(version, lineage).unlink(missing_ok=True)

    def object(self, sha256: str) -> Path | None:
        """Return the file with this content, or None."""
        path = self.root / "objects" / sha256
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

    def published(self, lineage: str = "") -> list[int]:
        """Return the versions by their files' names, oldest first; no file is read."""
        names = [path.stem for path in self._versions(lineage).glob("*.json")]
        return sorted(int(name) for name in names if name.isdecimal() and name.isascii())

    def _require_published(self, version: int, lineage: str) -> None:
        if version not in self.published(lineage):
            of = f" of channel {lineage}" if lineage else ""
            raise BundleError(
                f"version {version}{of} is not published; `cloud-server models list DIR` shows the "
                "versions"
            )

    def _versions(self, lineage: str) -> Path:
        return self.root / "versions" / lineage

    def _manifest(self, version: int, lineage: str) -> Path:
        return self._versions(lineage) / f"{version:06d}.json"

    def objects_of(self, manifests: Iterable[Path]) -> set[str]:
        """Return the sha256 of every file that these versions and their trainers need."""
        needed = set()
        for path in manifests:
            manifest = parse_manifest(path.read_bytes())
            needed |= {entry.sha256 for entry in manifest.files.values()}
            trainer = self.root / "objects" / manifest.trainer.sha256
            if manifest.trainer.sha256 not in needed:  # versions share it
                require_file(trainer, manifest.trainer)
                files = parse_trainer(trainer.read_bytes()).files.values()
                needed |= {manifest.trainer.sha256, *(entry.sha256 for entry in files)}
        return needed

    def _write_pins(self, lineage: str, pins: Collection[int]) -> None:
        every = {name: sorted(others) for name, others in self._pins().items()}
        every[lineage] = sorted(pins)
        fields = {"versions": every.pop("", [])} | ({"lineages": every} if every else {})
        write_durably(self.root / "pins.json", json.dumps(fields) + "\n")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _add(self, file: Path, entry: FileEntry) -> None:
        """Copy a file in unless its content is there already, undamaged."""
        target = self.root / "objects" / entry.sha256
        try:
            require_file(target, entry)
        except BundleError:
            require_file(file, entry)
            with file.open("rb") as stream, writing(target) as copy:
                shutil.copyfileobj(stream, copy)
