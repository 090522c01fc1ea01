"""Remember what became of every frame, so that a killed extraction continues where it ended.

OUT/.extract/ holds `command` (what is extracted, from what), `journal` (one line a chosen frame,
added only when its image file is safe on the disk), `reserve` (room for the last files on a full
disk) and `finished` (the index files, once they are written).
"""

import fcntl
import json
import os
import zlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from edge_agent.data.extraction.disk import write_all
from fleet_model.durable import make_directory
from fleet_model.errors import SettingsError
from fleet_model.files.damage import Damage

FOLDER = ".extract"


class Written(NamedTuple):
    """A frame that is a file."""

    time_ns: int  # of its entry: shows that the journal and the source still agree
    file: str  # relative to the data set
    source: str
    topic: str
    stamp_ns: int
    size_bytes: int
    checksum: int  # of the file: extract_disk.checksum
    hash: int | None  # picture_quality.picture_hash, where it was computed
    losses: tuple[Damage, ...]  # labels of this frame that could not be read
    line: str  # of the manifest


class Skipped(NamedTuple):
    """A chosen frame that is not a file."""

    time_ns: int
    reason: str
    begins: str  # where and why, for a damaged one; "" for one that nobody wanted


Outcome: TypeAlias = Written | Skipped
_LOSSES = Written._fields.index("losses")
_encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make one a line


class Journal:
    """The journal of one output folder; a context manager that locks the folder.

    First everything is read back (`outcomes`), then lines are added (`append`).
    """

    def __init__(self, out: Path, command: str) -> None:
        """Take over `out`: make it, or continue it.

        Args:
            out: where the data set goes.
            command: text that is the same for the same extraction, see command.py.

        Raises:
            SettingsError: `out` has something else in it, or someone else works on it.
            OSError: the disk is full or read-only.
        """
        self.folder = out / FOLDER
        _require_ours(out)
        make_directory(self.folder)  # durable before any image is
        self._descriptor = _locked(self.folder / "journal", out)
        try:
            self._end = _valid_bytes(self.folder / "journal")
            if os.fstat(self._descriptor).st_size > self._end:
                os.ftruncate(self._descriptor, self._end)  # a line that a crash cut
            if self._end:
                _require_same(self.folder / "command", command, out)
            else:
                # Not durable: the journal gets its first line after the next sync of all files.
                (self.folder / "command").write_bytes(command.encode())
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    @property
    def size_bytes(self) -> int:
        """How long it is."""
        return self._end

    def outcomes(self) -> Generator[Outcome, None, None]:
        """Yield what is remembered, in the order of the frames."""
        with (self.folder / "journal").open("rb") as stream:
            for line in stream:
                yield _outcome(line)

    def written(self) -> Iterator[Written]:
        """Yield the frames that are files."""
        return (outcome for outcome in self.outcomes() if isinstance(outcome, Written))

    def append(self, outcomes: Iterable[Outcome]) -> None:
        """Add outcomes whose image files are on the disk. Raises OSError and adds nothing."""
        text = b"".join(map(_line, outcomes))
        os.lseek(self._descriptor, self._end, os.SEEK_SET)
        try:
            write_all(self._descriptor, text)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(text)

    def sync(self) -> None:
        """Make it durable. Until then a power cut may take its end, and images are made again.

        Raises OSError, and keeps what is whole: where files are written late, a full disk shows
        only here, and takes bytes.
        """
        try:
            os.fsync(self._descriptor)
        except OSError:
            self._end = _valid_bytes(self.folder / "journal")
            os.ftruncate(self._descriptor, self._end)
            raise


def _require_ours(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out.name}: is a file; name a folder for the data set")
    if out.is_dir() and not (out / FOLDER).is_dir() and any(out.iterdir()):
        raise SettingsError(f"{out.name}: is not empty, and no extraction began it; choose another")


def _locked(path: Path, out: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SettingsError(f"{out.name}: another extraction works on it; wait for it") from None
    return descriptor


def _require_same(file: Path, command: str, out: Path) -> None:
    before, now = file.read_text().splitlines(), command.splitlines()
    if before == now:
        return
    other = [line for line in before if line not in now] or ["it had fewer sources"]
    raise SettingsError(
        f"{out.name}: was begun with other options or sources; then: {', '.join(other)[:300]}; "
        "choose another --out, or remove it"
    )


def _valid_bytes(path: Path) -> int:
    """Return where the last whole line ends; behind it is what a power cut left."""
    end = 0
    with path.open("rb") as stream:
        for line in stream:
            if not _is_whole(line):
                break
            end += len(line)
    return end


def _is_whole(line: bytes) -> bool:
    return line.endswith(b"\n") and line[:8] == b"%08x" % zlib.crc32(line[9:-1])


def _line(outcome: Outcome) -> bytes:
    """Return "checksum JSON": the fields of the outcome in their order."""
    values: list[object] = list(outcome)
    if isinstance(outcome, Written):
        values[_LOSSES] = [[loss.kind, loss.count, loss.begins] for loss in outcome.losses]
    text = _encode(values).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _outcome(line: bytes) -> Outcome:
    values = json.loads(line[9:].decode())
    if len(values) == len(Skipped._fields):
        return Skipped(*values)
    values[_LOSSES] = tuple(Damage(*loss) for loss in values[_LOSSES])
    return Written(*values)
