"""Tell which bags in the spool folder are complete.

A recorder writes for minutes and never says when it is done, so a bag counts as complete when

    it is a folder with metadata.yaml, which rosbag2 writes last, or a bare file, and nothing of it
    has changed for `settle_s`; or
    it was cut off, by a power loss or because its recorder is still at work (no metadata.yaml,
    SQLite's journal beside it, .bag.active), and nothing of it has changed for ten minutes.

Only names, sizes and times are looked at, with what Python has built in: the agent does this every
few seconds and stays small.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

TOTALS = "totals.json"  # in the store: what was taken in from the spool, in numbers
POWER_LOSS_S = 600.0  # rosbag2 flushes its cache every few seconds; a split bag continues sooner
_METADATA = "metadata.yaml"
_ROS2 = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_BARE = (*_ROS2, ".bag", ".bag.active")
_BESIDE = ("-wal", "-journal", "-shm")  # SQLite's own files, there while it writes
_KNOWN = (_METADATA, *_BARE, *(f".db3{end}" for end in _BESIDE))
_DEEPEST = 8  # folders; a link that leads back up must not be followed endlessly

Signature: TypeAlias = tuple[tuple[str, int, int], ...]  # (name, bytes, mtime in ns) of every file


class Recording(NamedTuple):
    """A bag in the spool as it was when last looked at."""

    path: Path
    signature: Signature

    @property
    def cut_off(self) -> bool:
        """Whether its recorder has not ended it."""
        names = {name for name, _, _ in self.signature}
        is_open = any(name.endswith((*_BESIDE, ".active")) for name in names)
        return is_open or not (_METADATA in names or self.path.name in names)


class Spool:
    """The bags of one spool folder; remembers since when each is unchanged."""

    def __init__(
        self,
        folder: Path,
        settle_s: float,
        power_loss_s: float = POWER_LOSS_S,
        monotonic_s: Callable[[], float] = time.monotonic,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Keep where to look; nothing is read yet."""
        self._folder = folder
        self._settle_s, self._power_loss_s = settle_s, power_loss_s
        self._monotonic_s, self._now_s = monotonic_s, now_s
        self._unchanged: dict[Path, tuple[Signature, float]] = {}  # since which monotonic time

    def complete(self) -> list[Recording]:
        """Return the bags that are complete now.

        A bag that is new here is complete after `settle_s` at the earliest, so ask again.

        Raises:
            OSError: the folder cannot be read.
        """
        seen: dict[Path, tuple[Signature, float]] = {}
        done = []
        for recording in find_recordings(self._folder):
            now_s = self._monotonic_s()
            signature, since_s = self._unchanged.get(recording.path, ((), now_s))
            if signature != recording.signature:
                since_s = now_s
            seen[recording.path] = recording.signature, since_s
            if self._is_complete(recording, now_s - since_s):
                done.append(recording)
        self._unchanged = seen
        return done

    def _is_complete(self, recording: Recording, unchanged_s: float) -> bool:
        if unchanged_s < self._settle_s:
            return False
        # Its age alone would not do: a clock that jumps (no battery) makes files look old.
        age_s = self._now_s() - max(mtime_ns for _, _, mtime_ns in recording.signature) / 1e9
        return not recording.cut_off or max(unchanged_s, age_s) >= self._power_loss_s


def find_recordings(folder: Path) -> Iterator[Recording]:
    """Yield the bags in a folder and its folders, in the order of names; hidden ones left out.

    ROS 1 bags and the files in `folder` itself are bags of their own; rosbag2's files in a folder
    below are one bag.

    Raises:
        OSError: the folder itself cannot be read; others that cannot are passed over.
    """
    yield from _search(_look(folder), 0)


class _Folder(NamedTuple):
    path: Path
    files: Signature  # what belongs to bags
    folders: list[Path]


def _search(here: _Folder, depth: int) -> Iterator[Recording]:
    names = [name for name, _, _ in here.files]
    if any(n.endswith(_ROS2) for n in names) and (depth or _METADATA in names):
        yield Recording(here.path, here.files)
        return
    for name in names:
        if name.endswith(_BARE):
            own = {name, *(name + end for end in _BESIDE)}
            yield Recording(here.path / name, tuple(file for file in here.files if file[0] in own))
    for folder in here.folders if depth < _DEEPEST else ():
        try:
            below = _look(folder)
        except OSError:
            continue  # gone meanwhile, or another user's
        yield from _search(below, depth + 1)


def _look(folder: Path) -> _Folder:
    files, folders = [], []
    with os.scandir(folder) as listing:
        for entry in listing:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(folder / entry.name)
            elif entry.name.endswith(_KNOWN):
                try:
                    found = entry.stat()
                except OSError:
                    continue  # gone between listing and looking
                files.append((entry.name, found.st_size, found.st_mtime_ns))
    return _Folder(folder, tuple(sorted(files)), sorted(folders))
