"""The data set that an extraction writes: images first, then the index files of its format.

An image counts when the journal has it, and the journal gets it when it is safe on the disk. That
happens for many at once, in a thread, while the next ones are written.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from edge_agent.data.extraction.disk import ImageDisk, Reserve
from edge_agent.data.extraction.index import FinishedMark
from edge_agent.data.extraction.journal import FOLDER, Journal, Outcome, Written
from edge_agent.data.labels import open_format
from edge_agent.data.manifest import (
    MANIFEST,
    DataSetManifest,
    ManifestRow,
    encode_text,
    header_line,
)
from fleet_model.durable import writing
from fleet_model.errors import FrameError, StorageError

_BATCH_FRAMES = 256
_BATCH_BYTES = 64 << 20
_ROOM_BYTES = 256 << 10  # for folders, and what a file system rounds up
_ROOM_PER_JOURNAL_BYTE = 5  # manifest and index say what the journal says, in more words
_ROOM_PER_FRAME = {"yolo": 4352}  # a file of its own for each: one block and a name


class ExtractOutput:
    """Writes into one output folder, which `journal` has locked. `close` it.

    Every method raises OSError where the disk is full or fails; then `rescue`.
    """

    def __init__(self, out: Path, format_name: str, journal: Journal) -> None:
        """Look at what is there."""
        self._out = out
        self._format = open_format(format_name)
        self._journal = journal
        self._disk = ImageDisk(out)
        self._reserve = Reserve(out / FOLDER / "reserve")
        self._room_per_frame = _ROOM_PER_FRAME.get(format_name, 0)
        self._mark = FinishedMark(out)
        self._is_finished = self._mark.is_intact()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._frames, self._pending_bytes = 0, 0
        self._pending: list[Outcome] = []
        self._committing: list[Outcome] = []  # what the thread works on
        self._commitment: Future[None] | None = None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def holds(self, written: Written) -> bool:
        """Return whether a remembered image is there and whole, or is not needed any more."""
        self._frames += 1
        self._mark.note_image(written.file)
        if self._is_finished and self._format.embeds_images:
            return True
        return self._disk.holds(written.file, written.size_bytes, written.checksum)

    def path_of(self, row: ManifestRow) -> str:
        """Return where the image of a row belongs; `row.file` is its bare name."""
        return self._format.path_of(row)

    def write(self, file: str, data: bytes | memoryview) -> int:
        """Write an image; return its checksum."""
        self._pending_bytes += len(data)
        self._mark.note_image(file)
        return self._disk.write(file, data)

    def remember(self, outcome: Outcome) -> None:
        """Add a new outcome to the journal, once its batch is complete."""
        self._is_finished = False
        self._pending.append(outcome)
        if len(self._pending) >= _BATCH_FRAMES or self._pending_bytes >= _BATCH_BYTES:
            self._begin_commit()

    def finish(self) -> None:
        """Complete the data set; nothing is written where everything is there already."""
        if self._pending:
            self._begin_commit()
        self._await_commit()
        self._tidy()
        if not self._is_finished:
            self._mark.remove()
            self._write_index()
            self._journal.sync()  # images may go now: nothing could tell that they were needed
            self._mark.write()
        if self._format.embeds_images:
            self._disk.remove(written.file for written in self._journal.written())

    def rescue(self, error: Exception) -> NoReturn:
        """Make a data set of what is there, in the space kept for that; raises StorageError."""
        what = "the frames so far are a valid data set"
        try:
            self._tidy()
            self._commit_again()
            self._write_index()
        except (OSError, FrameError, StorageError):
            what = "the frames so far are there, but no room was left for all index files"
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StorageError(
            f"{self._out.name}: {reason}; {what}. Make space: the same command then continues"
        ) from error

    def _begin_commit(self) -> None:
        self._await_commit()
        self._committing, self._pending, self._pending_bytes = self._pending, [], 0
        self._frames += len(self._committing)
        self._reserve.grow(
            _ROOM_BYTES
            + self._journal.size_bytes * _ROOM_PER_JOURNAL_BYTE
            + self._frames * self._room_per_frame
        )
        self._commitment = self._thread.submit(self._commit, self._committing)

    def _await_commit(self) -> None:
        if self._commitment:
            self._commitment.result()
            self._commitment, self._committing = None, []

    def _commit(self, outcomes: list[Outcome]) -> None:
        if outcomes:
            self._disk.sync()
            self._journal.append(outcomes)

    def _commit_again(self) -> None:
        """Commit what is open; where that fails, leave no image that the journal does not have."""
        if self._commitment and self._commitment.exception() is None:
            self._committing = []
        pending = [*self._committing, *self._pending]
        try:
            self._commit(pending)
        except OSError:
            self._disk.remove(_files(pending))
            raise

    def _write_index(self) -> None:
        manifest = self._out / MANIFEST
        with writing(manifest) as stream:
            stream.write(encode_text(header_line()))
            for written in self._journal.written():
                stream.write(encode_text(written.line))
        self._format.finish(self._out, DataSetManifest(manifest))

    def _tidy(self) -> None:
        self._disk.tidy()
        self._reserve.release()


def _files(outcomes: Iterable[Outcome]) -> list[str]:
    return [outcome.file for outcome in outcomes if isinstance(outcome, Written)]
