"""List the labelled frames of recordings; a frame that was read in an earlier round is not read.

Its label is looked up in every round, since people correct labels. For that, its size and its stamp
are enough. Its bytes are read when somebody asks for the picture.
"""

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from edge_agent.data.frames.source import Place, find_bags, storage_suffix
from edge_agent.data.label_formats.data_set import LabelledEntry
from edge_agent.data.label_formats.videos import is_of_videos, label_files
from edge_agent.data.labels import (
    Corrections,
    LabelSettings,
    open_recording,
)
from edge_agent.examples.frame_index import FrameIndex, FrameRow, KnownRecording, Whole
from edge_agent.examples.lazy_frame import FrameFinder, LazyFrame
from edge_agent.examples.signatures import Signature, digest_of, signature_of
from fleet_model.errors import FrameError
from fleet_model.files.damage import Damage, DamageLog
from fleet_model.types import Box

_TRANSIENT = "unreadable"  # damage that may be gone tomorrow: the disk or its rights, not the bytes


def recordings_in(path: Path) -> list[Path]:
    """Return the bags below a path, else the path itself; none in a folder that is empty yet.

    May raise OSError.
    """
    is_empty = path.is_dir() and not any(path.iterdir())
    return find_bags(path) or ([] if is_empty else [path])


class KnownLabelled(NamedTuple):
    """A frame with its label; see LabelledFrame."""

    frame: LazyFrame
    label: str
    boxes: tuple[Box, ...]
    seen: bool


class KnownFrames:
    """Lists recordings, and keeps what is known of their frames for the next round."""

    def __init__(self, index: FrameIndex) -> None:
        """Keep where to look up what was read."""
        self._index = index

    def labelled(
        self, path: Path, settings: LabelSettings, damage: DamageLog
    ) -> Iterator[KnownLabelled]:
        """Yield the frames that `labelled_frames` yields, in its order; raises as it does.

        What is learned of a recording is kept when its last frame was taken.
        """
        path, own = path.resolve(), DamageLog()
        topic = settings.label_topic
        options = (*settings, bool(topic) and Path(topic).exists())
        known, digest = self._index.read(path, options), _digest(path, topic)
        finder, reading = FrameFinder(path, settings), None
        try:
            if known.whole is not None and known.whole.digest == digest:
                has_own_topic, rows = known.whole.has_own_topic, known.rows()
                _add(known.whole.damage, own)
            else:
                recording = open_recording(path, settings)
                has_own_topic, reading = recording.has_own_topic, _Reading(known, own)
                rows = reading.rows(recording.entries(own))
            corrections = None
            if not has_own_topic:
                corrections = Corrections(path, settings, damage, self.labelled)
            for row in rows:
                mark = corrections and corrections.find(row.name, row.time_ns, row)
                told = mark or (row.label, row.boxes, row.seen)
                yield KnownLabelled(LazyFrame(row, None if row.name else finder), *told)
        finally:
            _add(own.all(), damage)
        if reading:
            whole = reading.whole(digest, has_own_topic)
            if reading.is_news or whole != known.whole:
                self._index.write(path, options, whole, reading.lasting, reading.signatures)

    def end(self) -> None:
        """Forget the recordings that were not listed since the last call."""
        self._index.prune()


class _Reading:
    """One pass over a recording: frames of unchanged files are taken from what is known."""

    def __init__(self, known: KnownRecording, damage: DamageLog) -> None:
        self._damage = damage
        self._earlier = {(row.file, row.at): (s, row) for s, row in known.signed_rows()}
        self._is_new: dict[str, bool] = {}  # file -> whether it has no signature yet
        self._count = 0
        self.signatures: dict[str, Signature] = {}
        self.lasting: list[FrameRow] = []  # rows of files that have a signature
        self._differs = False

    @property
    def is_news(self) -> bool:
        """Whether anything is known now that was not, or the other way round."""
        return self._differs or len(self.lasting) != len(self._earlier)

    def rows(self, entries: Iterator[LabelledEntry]) -> Iterator[FrameRow]:
        """Yield the frames that can be read; the others are added to the damage."""
        for entry in entries:
            place = entry.place
            if place is None:
                raise FrameError("its frames come once; record them first")
            try:
                row = self._row(entry, place)
            except FrameError as error:
                self._damage.add(error.reason, str(error))
                continue
            if row.file in self.signatures:
                self.lasting.append(row)
            yield row

    def whole(self, digest: str, has_own_topic: bool) -> Whole | None:
        """Return what spares the next round this pass; None if it must be done again."""
        damage = self._damage.all()
        if not digest or any(loss.kind == _TRANSIENT for loss in damage):
            return None
        return Whole(digest, has_own_topic, damage)

    def _row(self, entry: LabelledEntry, place: Place) -> FrameRow:
        file = str(place.file)
        signature = self._signature(file)
        known, row = self._earlier.get((file, place.at), (None, None))
        if row and entry.mark and signature and known == signature and _fits(row, entry, place):
            found = row._replace(time_ns=entry.time_ns, **entry.mark(row)._asdict())
            self._differs = self._differs or found != row
            return found
        self._differs = True
        frame, label, boxes, seen = entry.load()
        return FrameRow(
            file,
            place.at,
            entry.time_ns,
            entry.name if place.given else "",
            frame.source,
            frame.topic,
            frame.stamp_ns,
            frame.format,
            frame.width,
            frame.height,
            zlib.crc32(frame.data),
            label,
            boxes,
            seen,
        )

    def _signature(self, file: str) -> Signature | None:
        """Return the signature that a file had before anything of it was read."""
        if file not in self._is_new:
            signature = signature_of(file)
            self._is_new[file] = signature is None
            if signature:
                self.signatures[file] = signature
        return self.signatures.get(file)


def _digest(path: Path, label_topic: str) -> str:
    """Return the digest of all files that decide what is listed.

    "" if they are not known: of a data set that is named by one of its files they lie around it.
    """
    if is_of_videos(path):
        digests = [digest_of(file) for file in (path, *label_files(path, label_topic))]
        return " ".join(digests) if all(digests) else ""
    return digest_of(path) if path.is_dir() or storage_suffix(path.name) else ""


def _fits(row: FrameRow, entry: LabelledEntry, place: Place) -> bool:
    """Return whether nothing but the label can differ from what is known."""
    if place.given:
        return place.given == (row.source, row.topic, row.stamp_ns)
    return entry.topic in ("", row.topic)


def _add(losses: Iterable[Damage], damage: DamageLog) -> None:
    for loss in losses:
        damage.add(loss.kind, loss.begins, loss.count)
