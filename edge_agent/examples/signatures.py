"""Tell whether files have changed since they were read, without reading them."""

import os
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

# A file that is written twice within one tick of the file system's clock, which is at most 10 ms,
# keeps its time. So new a file has no signature yet.
_TICK_NS = 20_000_000


class Signature(NamedTuple):
    """What changes when a file changes."""

    size: int
    mtime_ns: int
    ctime_ns: int  # cannot be set back, as the time above can
    inode: int


def signature_of(path: str, now_ns: Callable[[], int] = time.time_ns) -> Signature | None:
    """Return a file's signature; None if it is not there, or too new to have a lasting one."""
    try:
        return _signature(os.stat(path), now_ns)  # noqa: PTH116  (a Path costs as much as the call)
    except OSError:
        return None


def digest_of(path: Path, now_ns: Callable[[], int] = time.time_ns) -> str:
    """Return one text for the signatures of all files in a folder and its folders, or of a file.

    "" if any of them has no signature. Links are followed, each folder once. Of a file, those whose
    names begin with its name count too: a database keeps its log beside it.
    """
    digest = blake2b(digest_size=16)
    try:
        for name, status in _files(path):
            signature = _signature(status, now_ns)
            if signature is None:
                return ""
            digest.update(f"{name!a} {signature}\n".encode())
    except OSError:
        return ""
    return digest.hexdigest()


def _signature(status: os.stat_result, now_ns: Callable[[], int]) -> Signature | None:
    if abs(now_ns() - status.st_ctime_ns) < _TICK_NS:
        return None
    return Signature(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _files(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    if path.is_dir():
        yield from _files_in(os.fspath(path), set())
        return
    for entry in sorted(os.scandir(path.parent), key=lambda entry: entry.name):
        if entry.name.startswith(path.name):
            yield entry.path, entry.stat()


def _files_in(folder: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result]]:
    status = os.stat(folder)  # noqa: PTH116
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            yield from _files_in(entry.path, seen)
        elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
            yield entry.path, entry.stat(follow_symlinks=False)
        else:
            yield entry.path, entry.stat()
