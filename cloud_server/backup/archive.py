"""The file of a backup: a plain tar file whose first member, backup.json, lists all others.

    backup.json   what it is, when and where it was made, size and sha256 of every file
    robots.json   the files of the directory, in the order of that list
    ...

It is written and read from its beginning to its end, so it may come from a pipe. The reader takes
the members that the list names, in its order, and nothing else: no link, no folder, no device, no
compression, no extended header. So what is written is what the list has, however the file was made.
"""

import hashlib
import io
import tarfile
from collections.abc import Callable, Sequence
from typing import Annotated, BinaryIO

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError

from cloud_server.backup.snapshot import OpenFile
from fleet_model import __version__
from fleet_model.bundle import FileEntry
from fleet_model.errors import BundleError, SettingsError, StorageError

LIST = "backup.json"
FORMAT = 1
MOST_LIST_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
Tell = Callable[[int], None]  # is told how many bytes are done


def _plain(name: str) -> str:
    """Refuse what could lead out of a folder, and what no backup has."""
    parts = name.split("/")
    if len(name.encode()) > 255 or "\0" in name or any(p[:1] in ("", ".") for p in parts):
        raise ValueError(f"{name[:50]!r} is no name of a file in a server directory")
    return name


class Entry(FileEntry):
    """One file."""

    private: bool = False  # only its owner may read it


class _Format(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    format: int = FORMAT


class Contents(_Format):
    """The list."""

    fleetlearn: str = __version__  # that wrote it
    created_at: AwareDatetime
    directory: str  # that it was made of; for people
    versions: dict[str, int]  # lineage -> newest version
    files: dict[Annotated[str, AfterValidator(_plain)], Entry]

    @property
    def size_bytes(self) -> int:
        """Return how many bytes its files have."""
        return sum(entry.size_bytes for entry in self.files.values())


class _Reader:
    """Reads one open file once, and hashes what was read; see tarfile.addfile."""

    def __init__(self, file: OpenFile) -> None:
        self._file, self._left = file, file.size_bytes
        self._sha256 = hashlib.sha256()
        file.stream.seek(0)

    def read(self, size: int) -> bytes:
        block = self._file.stream.read(min(size, self._left))
        if not block and self._left:
            raise _changed(self._file.name)
        self._left -= len(block)
        self._sha256.update(block)
        return block

    def entry(self) -> Entry:
        return Entry(
            sha256=self._sha256.hexdigest(),
            size_bytes=self._file.size_bytes,
            private=self._file.is_private,
        )


def entries_of(files: Sequence[OpenFile], tell: Tell) -> dict[str, Entry]:
    """Read every file; return what the list has of them.

    Raises:
        SettingsError: a name or a file that a tar file cannot hold.
    """
    found, done = {}, 0
    for file in files:
        try:
            _plain(file.name)
            _header(file.name, file.size_bytes).tobuf(tarfile.USTAR_FORMAT, "utf-8")
        except ValueError as error:
            raise SettingsError(
                f"{file.name}: cannot be in a backup ({error}); is it a file of the server?"
            ) from None
        reader = _Reader(file)
        while block := reader.read(BLOCK_BYTES):
            tell(done := done + len(block))
        found[file.name] = reader.entry()
    return found


def write(stream: BinaryIO, contents: Contents, files: Sequence[OpenFile], tell: Tell) -> None:
    """Write a backup of files whose list was made.

    Raises:
        StorageError: a file is not what it was when its list was made.
    """
    text, done = contents.model_dump_json(indent=1).encode(), 0
    with tarfile.open(
        fileobj=stream, mode="w|", bufsize=BLOCK_BYTES, format=tarfile.USTAR_FORMAT
    ) as tar:
        mtime = int(contents.created_at.timestamp())
        tar.addfile(_header(LIST, len(text), mtime), io.BytesIO(text))
        for file in files:
            reader = _Reader(file)
            header = _header(file.name, file.size_bytes, mtime)
            tar.addfile(header, reader)  # type: ignore[arg-type]  # it only reads
            if reader.entry() != contents.files[file.name]:
                raise _changed(file.name)
            tell(done := done + file.size_bytes)


def _changed(name: str) -> StorageError:
    return StorageError(f"{name} was changed while it was read; run the command again")


def _header(name: str, size_bytes: int, mtime: int = 0) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mtime = size_bytes, mtime
    header.mode = 0o600  # for who unpacks it by hand
    return header


def _cut(name: str) -> str:
    return f"is cut: it ends in the middle of {name}"


class Archive:
    """Reads a backup from its beginning; every error is a BundleError that names `name`."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        """Read the list."""
        self._stream, self._name = stream, name
        size = self._member(LIST).size
        if size > MOST_LIST_BYTES:
            raise self._error(f"its list has {size >> 20} MB")
        content = self._bytes(size, LIST)
        self._skip_padding(size, LIST)
        try:
            found = _Format.model_validate_json(content).format
            if found != FORMAT:
                raise self._error(
                    f"is of format {found}; fleetlearn {__version__} reads format {FORMAT}: "
                    "restore it with the version that made it"
                )
            self.contents = Contents.model_validate_json(content)
        except ValidationError:
            raise self._error("its list is damaged, or not of a server directory") from None

    def read(self, name: str, into: BinaryIO) -> None:
        """Copy the next file.

        Raises:
            BundleError: it is not the file that the list has.
        """
        entry, header = self.contents.files[name], self._member(name)
        if header.size != entry.size_bytes:
            raise self._error(f"{name} has {header.size} bytes, expected {entry.size_bytes}")
        digest, left = hashlib.sha256(), entry.size_bytes
        while left:
            block = self._bytes(min(left, BLOCK_BYTES), name)
            into.write(block)
            digest.update(block)
            left -= len(block)
        if digest.hexdigest() != entry.sha256:
            raise self._error(f"{name} is damaged (sha256 differs)")
        self._skip_padding(entry.size_bytes, name)

    def require_end(self) -> None:
        """Refuse what follows the last file of the list."""
        if self._bytes(tarfile.BLOCKSIZE, "its end").strip(b"\0"):
            raise self._error("holds more than its list has")

    def _member(self, name: str) -> tarfile.TarInfo:
        """Return the header of the next member, which must be this file."""
        block = self._stream.read(tarfile.BLOCKSIZE)
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError):
            what = f"is damaged before {name}"
            if name == LIST:
                what = "is no backup; is it compressed or encrypted? Unpack it first"
            elif len(block) < tarfile.BLOCKSIZE:
                what = _cut(name)
            raise self._error(what) from None
        if header.type != tarfile.REGTYPE or header.name != name or header.size < 0:
            raise self._error(f"holds {header.name[:80]!r} where {name} is expected")
        return header

    def _bytes(self, size: int, name: str) -> bytes:
        content = self._stream.read(size)
        if len(content) < size:
            raise self._error(_cut(name))
        return content

    def _skip_padding(self, size: int, name: str) -> None:
        self._bytes(-size % tarfile.BLOCKSIZE, name)

    def _error(self, what: str) -> BundleError:
        return BundleError(f"{self._name}: {what}; nothing is restored. Use another backup")
