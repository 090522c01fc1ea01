"""The robot's own store of examples on disk: bounded in size and age, whole after any crash.

    state/examples/
      ledger.json           what was taken in, see ledger.py
      .incoming/<batch>/    is being extracted; an interrupted extraction continues in here
      <batch>/              a data set of images, <label>/<image>, with its manifest.csv
        .batch.json         when it came in, what was left out

A batch appears by one rename, when all of it is on disk. Examples go in two steps: first their rows
of manifest.csv, then their files. Whatever a power cut leaves in between is not in a manifest and
is removed by `repair`.
"""

import json
import logging
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from edge_agent.data.manifest import MANIFEST, DataSetManifest, ManifestRow, write_manifest
from fleet_model.durable import rename_durably, write_durably
from fleet_model.errors import FrameError

_INCOMING, _NOTE = ".incoming", ".batch.json"
_GONE = ".gone-"  # a batch on its way out
_S_PER_DAY = 86_400
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchNote:
    """What came of one part of a recording."""

    at_s: float  # since 1970: when it came into the store
    seen: int  # frames
    kept: int
    dropped: dict[str, int]  # reason -> frames
    damage: dict[str, int]  # kind -> how often


class StoreSize(NamedTuple):
    """How much the store holds."""

    examples: int
    size_bytes: int


class Held(NamedTuple):
    """One example of the store; the order is that of age."""

    at_s: float
    stamp_ns: int
    batch: str
    file: str  # in its batch
    label: str
    size_bytes: int


class KeptExamples:
    """The store in one folder; one process may write, others may read at any moment."""

    def __init__(self, folder: Path) -> None:
        """Keep the folder's name; it may not be there yet."""
        self._folder = folder

    def batches(self) -> list[Path]:
        """Return the data sets that the store is made of."""
        with suppress(OSError):
            names = sorted(p.name for p in self._folder.iterdir() if not p.name.startswith("."))
            return [
                self._folder / name for name in names if (self._folder / name / MANIFEST).exists()
            ]
        return []

    def incoming(self, batch: str) -> Path:
        """Return where a batch is put together."""
        return self._folder / _INCOMING / batch

    def note(self, batch: str) -> BatchNote | None:
        """Return what was noted when a batch came in; None if it has not, or is gone again."""
        try:
            return BatchNote(**json.loads((self._folder / batch / _NOTE).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def discard(self, batch: str) -> None:
        """Drop what lies in `incoming`."""
        shutil.rmtree(self.incoming(batch), ignore_errors=True)

    def accept(self, batch: str, note: BatchNote) -> None:
        """Let a batch appear that lies in `incoming`, where everything is on disk already."""
        inside = self.incoming(batch)
        if not note.kept:
            self.discard(batch)
        else:
            write_durably(inside / _NOTE, json.dumps(asdict(note)))
            rename_durably(inside, self._folder / batch)
            _remove_strays(self._folder / batch)  # the journal of the extraction

    def repair(self, underway: Collection[str] = ()) -> None:
        """Finish what a crash has interrupted; the batches `underway` stay in `incoming`."""
        for position in [*self._folder.glob(f"{_GONE}*"), *self._folder.glob(f"{_INCOMING}/*")]:
            if position.name not in underway:
                shutil.rmtree(position)
        for file in self._folder.glob(".*.new"):  # of a process that was killed while it wrote
            file.unlink()
        for batch in self.batches():
            with suppress(FrameError):  # a manifest that a bad disk has spoilt: not ours to judge
                keep_rows(batch, lambda row, batch=batch: (batch / row.file).exists())  # type: ignore[misc]
                _remove_strays(batch)

    def rows(self) -> Iterator[tuple[Path, ManifestRow]]:
        """Yield (batch, row) of every example."""
        for batch in self.batches():
            try:
                for row in DataSetManifest(batch / MANIFEST):
                    yield batch, row
            except FrameError as error:
                log.warning("%s is left alone: %s", batch.name, error)

    def evict(self, max_bytes: float, max_age_days: float, now_s: float) -> StoreSize:
        """Remove batches that are too old, then examples until the rest is small enough.

        Of the examples, the oldest of the most frequent label go first, so the labels that a robot
        seldom sees stay.

        Returns:
            What is left.
        """
        for batch in self.batches():
            note = self.note(batch.name)
            if note and now_s - note.at_s > max_age_days * _S_PER_DAY:
                self._remove(batch)
        held = sorted(self._held())
        gone = choose_evicted(held, max_bytes)
        files: dict[str, set[str]] = {}
        for example in gone:
            files.setdefault(example.batch, set()).add(example.file)
        left = {example.batch for example in set(held).difference(gone)}
        for name, dropped in files.items():
            if name in left:
                keep_rows(self._folder / name, lambda row, gone=dropped: row.file not in gone)  # type: ignore[misc]
            else:
                self._remove(self._folder / name)
        size = sum(example.size_bytes for example in held) - sum(e.size_bytes for e in gone)
        return StoreSize(len(held) - len(gone), size)

    def _held(self) -> Iterator[Held]:
        times: dict[Path, float] = {}
        for batch, row in self.rows():
            if batch not in times:
                note = self.note(batch.name)
                times[batch] = note.at_s if note else 0.0
            with suppress(OSError):  # gone: a reader counts it, too
                size = (batch / row.file).stat().st_size
                yield Held(times[batch], row.stamp_ns, batch.name, row.file, row.label, size)

    def _remove(self, batch: Path) -> None:
        """Remove a batch: it vanishes by one rename."""
        gone = batch.with_name(_GONE + batch.name)
        rename_durably(batch, gone)
        shutil.rmtree(gone)


def choose_evicted(held: list[Held], max_bytes: float) -> list[Held]:
    """Return what has to go, in this order, until the rest is small enough.

    Args:
        held: all examples, the oldest first.
        max_bytes: of the rest.
    """
    queues: dict[str, deque[Held]] = {}
    for example in held:
        queues.setdefault(example.label, deque()).append(example)
    size, gone = sum(example.size_bytes for example in held), []
    while size > max_bytes:
        most = max(queues, key=lambda label: (len(queues[label]), label))
        gone.append(queues[most].popleft())
        size -= gone[-1].size_bytes
    return gone


def keep_rows(batch: Path, wanted: Callable[[ManifestRow], bool]) -> None:
    """Remove the examples of a data set that are not wanted: first the rows, then the files."""
    manifest = batch / MANIFEST
    files = [row.file for row in DataSetManifest(manifest) if not wanted(row)]
    if not files:
        return
    try:
        write_manifest(manifest, (row for row in DataSetManifest(manifest) if wanted(row)))
    except OSError:  # a full disk: the files make room; if it fails again, `repair` drops the rows
        _unlink(batch, files)
        write_manifest(manifest, (row for row in DataSetManifest(manifest) if wanted(row)))
    _unlink(batch, files)


def _unlink(batch: Path, files: Iterable[str]) -> None:
    for file in files:
        (batch / file).unlink(missing_ok=True)


def _remove_strays(batch: Path) -> None:
    """Remove what is in no row: pictures that were to go, files of a write that was cut off."""
    known = {batch / row.file for row in DataSetManifest(batch / MANIFEST)}
    known |= {batch / MANIFEST, batch / _NOTE}
    for path in sorted(batch.rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.is_dir():
            with suppress(OSError):  # not empty
                path.rmdir()
        elif path not in known:
            path.unlink()
