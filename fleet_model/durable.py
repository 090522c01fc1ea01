"""Change files so that a power cut leaves the old or the new state, never half of one.

All fsync calls of the project are in here. What is assumed of file systems, and how each call is
tested, is in docs/decisions/0012-power-cuts.md.
"""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fleet_model.errors import StorageError

# What the operator can mend: who may read what, and where there is room. Others are bugs.
OF_THE_MACHINE = {
    errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT, errno.EROFS,
}  # fmt: skip
# How file systems say that they have no links (FAT, exFAT), or none between these two files.
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK}


@contextmanager
def telling_of_the_disk(what: str, next_step: str) -> Iterator[None]:
    """Raise StorageError that says what failed, why, and what to do, where a disk is full or shut.

    Other errors of the operating system are bugs, and pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            raise
        raise StorageError(f"{what}: {error.strerror}; {next_step}") from error


@contextmanager
def writing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a temporary file; on success fsync it and rename it to `path`, else remove it.

    The process id is part of the temporary name, so two processes never write into one file: the
    last rename wins with a whole file.
    """
    make_directory(path.parent)
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    aside.unlink(missing_ok=True)  # left by a power cut, maybe with a wider mode
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def name_durably(aside: Path, path: Path) -> None:
    """Give a file that was written aside, maybe by several processes, its name in one step."""
    with aside.open("rb") as stream:
        os.fsync(stream.fileno())
    aside.replace(path)
    fsync_directory(path.parent)


def write_durably(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Replace `path` by `content` in one step."""
    with writing(path, mode=mode) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def appending(path: Path) -> Iterator[BinaryIO]:
    """Open `path` to append and read; on success fsync it, else cut off what was appended.

    After a power cut in here, the file ends with any part of what was appended.
    """
    end = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab+") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        if path.exists():
            os.truncate(path, end)
        raise
    if end == 0:  # it may be new
        fsync_directory(path.parent)


def remove_asides(folder: Path) -> None:
    """Remove what killed processes have left aside in a folder; live ones may write there.

    The next one has another process id, so without this each kill would leave a file for good.
    """
    for aside in folder.glob(".*.[0-9]*.new"):
        if not Path("/proc", aside.suffixes[-2][1:]).exists():
            aside.unlink(missing_ok=True)


def rename_durably(source: Path, target: Path) -> None:
    """Give a file or folder another name in one step; what is in it must be durable already."""
    source.rename(target)
    fsync_directory(target.parent)


@contextmanager
def making_folder(path: Path, aside: Path) -> Iterator[None]:
    """Let the new folder `aside` be filled; on success it becomes `path` in one step, else it goes.

    What a process that was killed has left there is removed first. Both are on one file system.
    """
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield
        sync_file_system(aside)  # before it gets its name, all that is in it must be durable
        rename_durably(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def remove_durably(file: Path) -> None:
    """Remove a file such that it does not come back; raises FileNotFoundError."""
    file.unlink()
    fsync_directory(file.parent)


def point_durably(link: Path, target: str) -> None:
    """Make the symbolic link `link` name `target` in one step; read it with `pointed`.

    On a file system without symbolic links, `link` is a file that holds `target` as text.
    """
    aside = link.with_name(f".{link.name}.{os.getpid()}.new")
    aside.unlink(missing_ok=True)
    try:
        aside.symlink_to(target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        write_durably(link, target)
        return
    rename_durably(aside, link)


def make_directory(path: Path) -> None:
    """Make a directory and the missing ones above it, each durable in its parent.

    Raises:
        NotADirectoryError: a file is in its place.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    try:
        path.mkdir(exist_ok=True)
    except FileExistsError:  # says nothing to people, and is no error of the disk
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    fsync_directory(path.parent)


def pointed(link: Path) -> Path:
    """Return what `point_durably` made `link` name; `link` itself if that is no such file."""
    if link.is_symlink() or not link.is_file():
        return link
    try:
        target = link.read_text()
    except ValueError:  # not text: damaged
        return link
    return link.parent / target if target and target.isprintable() else link


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that never changes a second name; where there are no hard links, copy it.

    A copy is durable; a link is once its directory is synced.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with source.open("rb") as content, writing(target) as stream:
            shutil.copyfileobj(content, stream, 1 << 20)


def sync_file_system(path: Path) -> None:
    """Flush the file system that `path` is on: one call for thousands of files.

    syncfs of 90 MB takes 0.05 to 0.1 s, an fsync of each file minutes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(descriptor)


def stamp_of(path: Path) -> tuple[int, int]:
    """Return what changes whenever `path` is replaced; zeros where it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino


def fsync_directory(path: Path) -> None:
    """Make the names in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
