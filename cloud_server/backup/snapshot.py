"""Open a server directory as it is at one moment, while its server goes on writing.

Nothing is locked and nothing is written: a backup must stop no round, and is needed most on a disk
that can only be read. Every file is opened before the first one is read, since an open file stays
what it was when another takes its name. Then the folder is walked once more. If every name leads to
the file that was opened, and there is no other name, all of them were there together, at the moment
between the two walks: whatever one of them names is among them, as after kill -9. Else it is done
again; a walk takes milliseconds. Lines that are appended meanwhile belong to what comes later.

Left out is what the next start makes again, or what is of no use elsewhere:

    names with a dot before   locks, and what is being written or deleted
    flower/                   open questions to robots: they are asked again
    round.json, *.spool       of the open round, which begins again: see restore.py
    tensorboard/, totals.json  made from the history
"""

import errno
import os
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import FileIO
from pathlib import Path

from fleet_model.errors import StorageError

LEFT_OUT = (
    ".*", "*/.*", "flower", "tensorboard", "totals.json", "channels/*/totals.json",
    "runs*/round.json", "runs*.spool",
)  # fmt: skip
LINES = ".jsonl"  # files that grow by lines
TRIES, PAUSE_S = 100, 0.1
BLOCK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file as it was at that moment."""

    name: str  # below the directory, with slashes
    stream: FileIO
    size_bytes: int  # that count: of a file of lines the whole ones

    @property
    def is_private(self) -> bool:
        """Return whether only its owner may read it."""
        return not os.fstat(self.stream.fileno()).st_mode & 0o077


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All files, by name; they are open while the context is."""

    files: Sequence[OpenFile]
    strange: Sequence[str]  # names of what is neither a file nor a folder; left out


@contextmanager
def opened(root: Path) -> Iterator[Snapshot]:
    """Open what belongs into a backup; links are followed.

    Raises:
        StorageError: the directory changes all the time, or has more files than may be open.
        OSError: a file cannot be read.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for _ in range(TRIES):
        with ExitStack() as stack:
            snapshot = _open_all(root, stack)
            if snapshot is not None:
                yield snapshot
                return
        time.sleep(PAUSE_S)
    raise StorageError(f"{root}: its files change faster than they can be opened; try again")


def _open_all(root: Path, stack: ExitStack) -> Snapshot | None:
    """Return the files if they were all there at one moment, else None."""
    strange: list[str] = []
    try:
        streams = {
            name: stack.enter_context(path.open("rb", buffering=0))
            for name, path in _walk(root, "", strange, ())
        }
        files = [OpenFile(name, one, _size(name, one)) for name, one in sorted(streams.items())]
        now = {name: path.stat() for name, path in _walk(root, "", [], ())}
    except FileNotFoundError:  # replaced or deleted between two looks
        return None
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise StorageError(
            f"{root}: has more files than this user may open ({most}); raise that limit: ulimit -n"
        ) from None
    same = now.keys() == streams.keys() and all(
        os.path.samestat(os.fstat(streams[name].fileno()), status) for name, status in now.items()
    )
    return Snapshot(files, sorted(strange)) if same else None


def _walk(
    folder: Path, name: str, strange: list[str], above: tuple[str, ...]
) -> Iterator[tuple[str, Path]]:
    """Yield name and path of every file; a link that leads back to a folder `above` is strange."""
    above = (*above, os.path.realpath(folder))
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        inner = f"{name}/{entry.name}" if name else entry.name
        if any(fnmatchcase(inner, pattern) for pattern in LEFT_OUT):
            continue
        if entry.is_file():
            yield inner, Path(entry.path)
        elif entry.is_dir() and os.path.realpath(entry.path) not in above:
            yield from _walk(Path(entry.path), inner, strange, above)
        else:
            strange.append(inner)


def _size(name: str, stream: FileIO) -> int:
    end = os.fstat(stream.fileno()).st_size
    while name.endswith(LINES) and end:
        begin = max(end - BLOCK_BYTES, 0)
        newline = os.pread(stream.fileno(), end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return end
