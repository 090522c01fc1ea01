"""Bring what robots fetch to another place: a folder of a web server, or a bucket.

The order makes every moment one that robots accept: objects, then the manifests that name them,
then the metadata that names those, and timestamp.json last. What no signature names any more goes
after that. Killed anywhere, the next call does what is left.
"""

import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from cloud_server.signing.signing import sign, signed_store
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from fleet_model.durable import remove_asides, write_durably, writing
from fleet_model.errors import BundleError, ConnectionFailed, SettingsError, StorageError

LAST = "metadata/timestamp.json"  # with it robots see the new state
FOLDERS = ("metadata", "targets", "objects")
_OURS = re.compile(r"metadata/[^/]+\.json|targets/.+\.json|objects/[0-9a-f]{64}")
MOST_WORDS = 300


@dataclass(slots=True)
class Synced:
    """What was done."""

    brought: int = 0  # files
    size_bytes: int = 0  # of them
    removed: int = 0
    until: str = ""  # until when robots take what is there; UTC


class Destination(Protocol):
    """Files by name, e.g. objects/<sha256>."""

    def sizes(self) -> Mapping[str, int]:
        """Return the files that are there, of whatever name, with their sizes in bytes."""
        ...

    def read(self, name: str) -> bytes:
        """Return a small file."""
        ...

    def put(self, name: str, content: bytes | Path) -> None:
        """Write a file as a whole; a Path is a file on this machine."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file."""
        ...


def sync(server_dir: ServerDirectory, destination: Destination) -> Synced:
    """Sign what is due, and make a place have what robots fetch.

    Raises:
        BundleError: an object is missing here; robots see what was there before.
        ConnectionFailed, StorageError: the destination cannot be written.
        SettingsError: as `sign`.
    """
    sign(server_dir)
    store, files = DirectoryStore(server_dir.store), signed_store(server_dir).files
    small = files.everything()
    objects = _objects(store, small, {f"targets/{name}" for name in files.named()})
    there, done = destination.sizes(), Synced()
    timestamp = small.pop(LAST)
    is_same = LAST in there and destination.read(LAST) == timestamp

    def bring(name: str, content: bytes | Path) -> None:
        destination.put(name, content)
        done.brought += 1
        done.size_bytes += content.stat().st_size if isinstance(content, Path) else len(content)

    for name, file in objects.items():
        try:
            size = file.stat().st_size
        except FileNotFoundError:
            raise BundleError(
                f"{name} is missing here, and a signed model needs it; `cloud-server repair DIR` "
                "makes it again"
            ) from None
        if there.get(name) != size:
            bring(name, file)
    for name in sorted(small, key=_rank):
        if not is_same or there.get(name) != len(small[name]):
            bring(name, small[name])
    if not is_same:
        bring(LAST, timestamp)
    for name in there:
        if _OURS.fullmatch(name) and name not in {LAST, *small, *objects}:
            destination.remove(name)
            done.removed += 1
    done.until = f"{files.current()['timestamp'].signed.expires:%Y-%m-%d %H:%M}"
    return done


def _objects(
    store: DirectoryStore, small: Mapping[str, bytes], named: Collection[str]
) -> dict[str, Path]:
    """Return name -> file of the objects that `named` manifests need, and of others if here.

    The others are those of the last few states: a robot may be between two of them.
    """

    def needed(names: Iterable[str]) -> dict[str, Path]:
        found = store.objects_of([store.root / name for name in names])
        return {f"objects/{one}": store.root / "objects" / one for one in found}

    manifests = [name for name in small if name.endswith(".manifest.json")]
    objects = needed(name for name in manifests if name in named)
    for name in manifests:
        if name not in named:
            with suppress(BundleError):
                others = needed([name])
                objects |= {one: file for one, file in others.items() if file.exists()}
    return objects


def _rank(name: str) -> tuple[int, str]:
    """Order small files: what is named comes before what names it."""
    kinds = ("targets/", ".root.json", ".snapshot.json")
    ranks = [rank for rank, kind in zip((0, 1, 3), kinds, strict=True) if kind in name]
    return (ranks[0] if ranks else 2), name


def destination_of(where: str, options: Mapping[str, Any], store: Path) -> Destination:
    """Return a folder, or a bucket as s3://bucket/folder.

    Raises:
        SettingsError: it is no place that can be written, or a package is missing.
    """
    where = where.removeprefix("file://")
    if "://" in where:
        return Bucket(where, options)
    if Path(where).resolve() == store.resolve():
        raise SettingsError(f"{where}: is the store itself; name another place")
    return Folder(Path(where))


class Folder:
    """A folder on this machine, as a web server or a network drive has it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def sizes(self) -> Mapping[str, int]:
        """See Destination; what a killed process has left there is removed."""
        with self._telling():
            found = {}
            for folder in (self._root / name for name in FOLDERS):
                for part in (folder, *folder.rglob("*/")):
                    remove_asides(part)
                for file in folder.rglob("*"):
                    if file.is_file():
                        found[str(file.relative_to(self._root))] = file.stat().st_size
            return found

    def read(self, name: str) -> bytes:
        """See Destination."""
        with self._telling():
            return (self._root / name).read_bytes()

    def put(self, name: str, content: bytes | Path) -> None:
        """See Destination."""
        with self._telling():
            target = self._root / name
            if isinstance(content, bytes):
                write_durably(target, content)
                return
            with content.open("rb") as stream, writing(target) as copy:
                shutil.copyfileobj(stream, copy)

    def remove(self, name: str) -> None:
        """See Destination."""
        with self._telling():
            (self._root / name).unlink(missing_ok=True)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{self._root}: cannot be written ({error.strerror or error}); robots see what was "
                "there before. Call it again when it can"
            ) from None


class Bucket:
    """A bucket, by fsspec."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        """Load what this kind of bucket needs; raises SettingsError."""
        kind = url.partition("://")[0]
        if kind in ("http", "https"):
            raise SettingsError(
                f"{url}: nothing can be written there; name the folder of that web server, or a "
                "bucket as s3://bucket/folder"
            )
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(url.rstrip("/"), **options)
        except ImportError as error:
            raise SettingsError(
                f"{url}: {_words(error)}; pip install 'fleetlearn[bucket]' has what s3:// needs"
            ) from None
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{url}: {_words(error)}") from None
        self._url, self._is_s3 = url, kind in ("s3", "s3a")

    def sizes(self) -> Mapping[str, int]:
        """See Destination."""
        found = {}
        for folder in FOLDERS:
            listed = self._do(partial(self._listed, folder))
            for path, about in listed.items():
                name = path.removeprefix(self._root).lstrip("/")
                found[name] = int(about["size"])
        return found

    def _listed(self, folder: str) -> dict[str, Any]:
        try:
            return dict(self._files.find(f"{self._root}/{folder}", detail=True))
        except FileNotFoundError:
            return {}

    def read(self, name: str) -> bytes:
        """See Destination."""
        return bytes(self._do(lambda: self._files.cat_file(self._path(name))))

    def put(self, name: str, content: bytes | Path) -> None:
        """See Destination; caches are told what changes."""
        about = {}
        if self._is_s3:
            kept = "no-cache" if name == LAST else "public, max-age=86400"
            about = {"CacheControl": kept}
        path = self._path(name)
        if isinstance(content, bytes):
            self._do(lambda: self._files.pipe_file(path, content, **about))
        else:
            self._do(lambda: self._files.put_file(str(content), path, **about))

    def remove(self, name: str) -> None:
        """See Destination."""
        self._do(lambda: self._files.rm_file(self._path(name)))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _do(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # noqa: BLE001  (of any library)
            raise ConnectionFailed(
                f"{self._url}: {_words(error)}; robots see what was there before. Are bucket, "
                "address and credentials right?"
            ) from None


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:MOST_WORDS] or type(error).__name__
