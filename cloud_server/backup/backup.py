"""Write all that a server directory needs to live on another machine into one file."""

import re
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from cloud_server.backup import archive
from cloud_server.backup.archive import Contents
from cloud_server.backup.snapshot import OpenFile, Snapshot, opened
from cloud_server.state.directory import ServerDirectory
from fleet_model.durable import writing
from fleet_model.errors import SettingsError, StorageError

Progress = Callable[[str], None]
SPARE_BYTES = 1 << 20  # for headers, the list and what a file system needs beside the content
_VERSION = re.compile(r"(?:channels/([^/]+)/)?checkpoints/(\d+)/")


@dataclass(frozen=True, slots=True)
class Backup:
    """What was written."""

    contents: Contents
    strange: Sequence[str]  # names of what is neither a file nor a folder; left out


def back_up(
    server_dir: ServerDirectory, target: Path | BinaryIO, now: datetime, progress: Progress
) -> Backup:
    """Write a backup of a directory whose server may run; see snapshot.py for what is in it.

    It holds the private keys: a file is readable for its owner alone. A file that is there is
    replaced when the new one is complete and durable.

    Args:
        server_dir: the whole directory, with all lineages.
        target: the file, or a stream.
        now: UTC.
        progress: is told how far it is.

    Raises:
        SettingsError: no server directory, no place for a file, or a file that cannot be in it.
        StorageError: too little room, or the directory changes all the time.
        OSError: a file cannot be read or written.
    """
    server_dir.require()
    if isinstance(target, Path):
        _require_place(target, server_dir.root)
    with opened(server_dir.root) as snapshot:
        if not isinstance(target, Path):
            return _write(target, server_dir, snapshot, now, progress)
        require_room(target.parent, sum(file.size_bytes for file in snapshot.files))
        with writing(target, mode=0o600) as stream:
            return _write(stream, server_dir, snapshot, now, progress)


def _write(
    stream: BinaryIO,
    server_dir: ServerDirectory,
    snapshot: Snapshot,
    now: datetime,
    progress: Progress,
) -> Backup:
    total = sum(file.size_bytes for file in snapshot.files)
    contents = Contents(
        created_at=now,
        directory=str(server_dir.root.absolute()),
        versions=_newest(snapshot.files),
        files=archive.entries_of(snapshot.files, telling(progress, "hashing", total)),
    )
    archive.write(stream, contents, snapshot.files, telling(progress, "writing", total))
    return Backup(contents, snapshot.strange)


def telling(progress: Progress, what: str, total: int) -> archive.Tell:
    """Return what tells how many megabytes are done."""
    return lambda done: progress(f"{what} {done >> 20} of {total >> 20} MB")


def require_room(folder: Path, size_bytes: int) -> None:
    """Raise StorageError if so many bytes do not fit on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if free < size_bytes + SPARE_BYTES:
        raise StorageError(
            f"{folder}: {(size_bytes + SPARE_BYTES) >> 20} MB are needed, {free >> 20} MB are "
            "free; make room, or choose another disk"
        )


def _require_place(target: Path, root: Path) -> None:
    if not target.parent.is_dir():
        raise SettingsError(f"{target.parent}: there is no such folder; is its disk mounted?")
    if target.parent.resolve().is_relative_to(root.resolve()):
        raise SettingsError(
            f"{target}: is in the server directory, so the next backup would hold it; choose a "
            "place outside, best on another disk"
        )
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise SettingsError(f"{target}: is there and is not a file; choose another name")


def _newest(files: Sequence[OpenFile]) -> dict[str, int]:
    newest: dict[str, int] = {}
    for file in files:
        if found := _VERSION.match(file.name):
            lineage, version = found[1] or "", int(found[2])
            newest[lineage] = max(version, newest.get(lineage, version))
    return newest
