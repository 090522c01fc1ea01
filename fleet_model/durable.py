"""Write files so that a power cut leaves the old or the new one, never half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def fsync_directory(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a file aside; on success fsync it and rename it to `path`, else remove it.

    The process id is part of the aside name, so two processes never write into one file: the last
    rename wins with a whole file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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


def write_durably(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Replace `path` by `content` in one step."""
    with writing(path, mode=mode) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def point_durably(link: Path, target: str) -> None:
    """Make the symbolic link `link` name `target` in one step."""
    aside = link.with_name(f".{link.name}.{os.getpid()}.new")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target)
    aside.replace(link)
    fsync_directory(link.parent)
