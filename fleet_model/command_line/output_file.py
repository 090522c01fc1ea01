"""Files that a user names for the result of a command: checked before the work, never in the way.

Only a regular file is ever replaced. A device or a pipe is written to, a link is followed, and
`-` is stdout.
"""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fleet_model.durable import writing
from fleet_model.errors import SettingsError, StorageError

STDOUT = Path("-")


def require_output(path: Path | None, option: str, suffixes: tuple[str, ...] = ()) -> None:
    """Find out before the work, not after it, that a file cannot be written. Nothing is left there.

    Args:
        path: as the user typed it; None: not asked for.
        option: that named it, for the message.
        suffixes: of the formats that can be written; none given: any.

    Raises:
        SettingsError: the suffix names no format that can be written, `path` is a folder, or its
            own folder is not there.
        StorageError: this user cannot write there.
    """
    if path is None or path == STDOUT:
        return
    if path.is_dir():
        raise SettingsError(f"{option} {path}: is a folder; name a file, for example {path}/out")
    if _is_special(path):
        if not os.access(path, os.W_OK):
            raise StorageError(f"{option} {path}: this user may not write to it")
        return
    if suffixes and path.suffix.lower() not in suffixes:
        known = " or ".join(suffixes)
        raise SettingsError(f"{option} {path}: the name must end with {known}")
    folder = _followed(path).parent
    require_folder(folder, f"{option} {path}")
    if not folder.exists():
        raise SettingsError(f"{option} {path}: there is no folder {folder}; make it first")


def require_folder(folder: Path, subject: str) -> None:
    """Raise StorageError unless this user can make a file in a folder, or the folder itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise StorageError(f"{subject}: {folder} is a file, expected a folder")
    probe = folder / f".{os.getpid()}.probe"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"{subject}: nothing can be written in {folder} ({error.strerror}); name another "
            "place, or give this user the right to write there"
        ) from None


@contextmanager
def output_file(path: Path) -> Iterator[BinaryIO]:
    """Open what the user named: a regular file gets its new content in one step, at the end.

    Raises:
        StorageError: it cannot be written; an older file of that name is as it was.
    """
    try:
        if path == STDOUT:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif _is_special(path):
            with path.open("wb") as stream:
                yield stream
        else:
            target = _followed(path)
            mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o644
            with writing(target, mode=mode) as stream:
                yield stream
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from None


def write_output(path: Path, content: bytes) -> None:
    """Write all of it; see output_file."""
    with output_file(path) as stream:
        stream.write(content)


def _is_special(path: Path) -> bool:
    """Return whether it is there and neither a regular file nor a folder: a device, a pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _followed(path: Path) -> Path:
    return path.resolve() if path.is_symlink() else path
