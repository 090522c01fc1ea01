"""What is known of the frames of recordings, kept so that a frame is read once.

One file for each recording, of JSON lines:

    {"format": 3, "version": ..., "recording": ..., "options": [...], "whole": ...}
    [path, size, mtime_ns, ctime_ns, inode]                 one line for each file, then its frames:
    [at, time_ns, name, source, topic, stamp_ns, format, width, height, checksum, label, boxes,
     seen]
    "crc32 of all lines before"

All of it can be made again from the recording, so it is written without fsync: after a power cut
the checksum does not fit, and the recording is read again.
"""

import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from sys import intern
from typing import Any, BinaryIO, NamedTuple

from edge_agent.examples.signatures import Signature
from fleet_model import __version__
from fleet_model.errors import FrameError
from fleet_model.files.damage import Damage
from fleet_model.types import Box

_FORMAT = 3  # 2: photos upright, so their sizes and boxes; 3: seen
LIMIT_BYTES = 64_000_000  # of all files: about 300,000 frames
_BLOCK = 1 << 20
_CHECKSUM_BYTES = len('"00000000"\n')
log = logging.getLogger(__name__)


class FrameRow(NamedTuple):
    """One frame that was read."""

    file: str  # absolute
    at: int  # see Place
    time_ns: int  # see LabelledEntry
    name: str  # of an image file in its data set; "" is a frame inside a larger file
    source: str
    topic: str
    stamp_ns: int
    format: str
    width: int
    height: int
    checksum: int  # crc32 of the frame's bytes
    label: str  # that the recording itself gives
    boxes: tuple[Box, ...]
    seen: bool  # see Mark


class Whole(NamedTuple):
    """What is known beside the frames of a recording that needs no opening to be listed."""

    digest: str  # of the signatures of all its files
    has_own_topic: bool  # see Recording
    damage: tuple[Damage, ...]


class KnownRecording:
    """What the index holds of one recording; iterating reads it from disk in flat memory."""

    def __init__(self, file: Path | None = None, whole: Whole | None = None) -> None:
        """Keep the file that was checked; None: nothing is known."""
        self._file = file
        self.whole = whole  # None: the recording must be opened to list it

    def rows(self) -> Iterator[FrameRow]:
        """Yield the frames, in the order of the recording."""
        return (row for _, row in self.signed_rows())

    def signed_rows(self) -> Iterator[tuple[Signature, FrameRow]]:
        """Yield the frames with the signatures that their files had.

        Raises:
            FrameError: another process has removed what is known, or the disk fails.
        """
        if self._file is None:
            return
        path, signature = "", Signature(0, 0, 0, 0)
        try:
            stream = self._file.open("rb")
        except OSError as error:
            raise FrameError(f"what is known of its frames: {error.strerror}") from None
        with stream:
            stream.readline()
            for line in stream:
                values = json.loads(line)
                if isinstance(values, str):  # the checksum
                    return
                if isinstance(values[0], str):
                    path, signature = values[0], Signature(*values[1:])
                else:
                    yield signature, _row(path, values)


class FrameIndex:
    """Keeps what is known in a folder of the robot's state; bounded, never an error."""

    def __init__(
        self, folder: Path | None, *, limit_bytes: int = LIMIT_BYTES, read_only: bool = False
    ) -> None:
        """Keep the folder's name; it is made when it is needed.

        Args:
            folder: None keeps nothing.
            limit_bytes: of all files; what does not fit is read in every round.
            read_only: what is known is used, and nothing is added or removed.
        """
        self._folder, self._limit_bytes, self._read_only = folder, limit_bytes, read_only
        self._used: set[str] = set()
        self._told: set[str] = set()
        self._is_full = False

    def read(self, recording: Path, options: tuple[Any, ...]) -> KnownRecording:
        """Return what is known of a recording with these options; nothing of a damaged file."""
        if self._folder is None:
            return KnownRecording()
        file = self._file(recording)
        self._used.add(file.name)
        try:
            with file.open("rb") as stream:
                header = _checked_header(stream)
        except FileNotFoundError:
            return KnownRecording()
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning(
                "what is known of the frames of %s is damaged (%s); they are read again",
                recording.name,
                error,
            )
            return KnownRecording()
        whole = header.pop("whole", None)
        if header != _header(recording, options):
            self._tell_other(recording, header)
            return KnownRecording()
        if whole is not None:
            digest, has_own_topic, damage = whole
            whole = Whole(digest, has_own_topic, tuple(Damage(*loss) for loss in damage))
        return KnownRecording(file, whole)

    def write(
        self,
        recording: Path,
        options: tuple[Any, ...],
        whole: Whole | None,
        rows: Iterable[FrameRow],
        signatures: Mapping[str, Signature],
    ) -> None:
        """Keep what is known of a recording in place of what was.

        Args:
            recording: where it is.
            options: by which it was listed.
            whole: see KnownRecording.
            rows: the frames of a file follow each other.
            signatures: of the files of `rows`.
        """
        if self._folder is None or self._read_only:
            return
        file = self._file(recording)
        aside = file.with_name(f".{file.name}.{os.getpid()}.new")
        header = {**_header(recording, options), "whole": whole and _listed(whole)}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            left_bytes = self._limit_bytes - self._size_bytes(besides=file.name)
            with aside.open("wb") as stream:
                size_bytes = _write_lines(stream, _lines(header, rows, signatures))
            if size_bytes <= left_bytes:
                aside.replace(file)
            else:
                aside.unlink()
                file.unlink(missing_ok=True)
                self._tell_full(recording)
        except OSError as error:
            log.warning("what is known of frames is not kept: %s", error.strerror)
            with suppress(OSError):
                aside.unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove what was not read since the last call: recordings that are gone."""
        used, self._used = self._used, set()
        if self._folder is None or self._read_only:
            return
        with suppress(OSError):
            for file in list(self._folder.iterdir()):
                if file.name not in used:
                    file.unlink(missing_ok=True)

    def _file(self, recording: Path) -> Path:
        assert self._folder is not None
        name = blake2b(os.fsencode(recording), digest_size=16).hexdigest()
        return self._folder / f"{name}.jsonl"

    def _size_bytes(self, besides: str) -> int:
        assert self._folder is not None
        with os.scandir(self._folder) as found:
            return sum(entry.stat().st_size for entry in found if entry.name != besides)

    def _tell_other(self, recording: Path, header: Mapping[str, Any]) -> None:
        """Say once why frames that were listed are read again: the list that follows will fit."""
        made = header.get("version"), header.get("format")
        by = "with other settings" if made == (__version__, _FORMAT) else f"by version {made[0]}"
        text = f"the frames of {recording.name} were listed {by}; they are read and listed again"
        if text not in self._told:
            log.info("%s", text)
        self._told.add(text)

    def _tell_full(self, recording: Path) -> None:
        if not self._is_full:
            log.warning(
                "more frames than %d MB can list: those of %s are read in every round",
                self._limit_bytes // 10**6,
                recording.name,
            )
        self._is_full = True


def _header(recording: Path, options: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": __version__,  # another one may read frames or labels in another way
        "recording": os.fspath(recording),
        "options": list(options),
    }


def _checked_header(stream: BinaryIO) -> dict[str, Any]:
    """Return the first line of a file whose checksum fits; raises ValueError where it does not."""
    end = stream.seek(0, os.SEEK_END) - _CHECKSUM_BYTES
    checksum, at = 0, stream.seek(0)
    while at < end:
        block = stream.read(min(_BLOCK, end - at))
        checksum, at = zlib.crc32(block, checksum), at + len(block)
    if json.loads(stream.read()) != f"{checksum:08x}":
        raise ValueError("wrong checksum")
    stream.seek(0)
    header: dict[str, Any] = json.loads(stream.readline())
    return header


def _lines(
    header: Mapping[str, Any], rows: Iterable[FrameRow], signatures: Mapping[str, Signature]
) -> Iterator[Any]:
    yield header
    file = ""
    for row in rows:
        if row.file != file:
            file = row.file
            yield [file, *signatures[file]]
        boxes = [(box.label, box.x0, box.y0, box.x1, box.y1) for box in row.boxes]
        yield [*row[1:-2], boxes, row.seen]


def _write_lines(stream: BinaryIO, lines: Iterable[Any]) -> int:
    """Write the lines and their checksum; return how many bytes that were."""
    checksum = 0
    for line in lines:
        content = json.dumps(line).encode() + b"\n"
        checksum = zlib.crc32(content, checksum)
        stream.write(content)
    stream.write(json.dumps(f"{checksum:08x}").encode() + b"\n")
    return stream.tell()


def _listed(whole: Whole) -> list[Any]:
    damage = [(loss.kind, loss.count, loss.begins) for loss in whole.damage]
    return [whole.digest, whole.has_own_topic, damage]


def _row(path: str, values: list[Any]) -> FrameRow:
    at, time_ns, name, source, topic, stamp_ns, kind, width, height, *rest = values
    checksum, label, boxes, seen = rest
    return FrameRow(
        path,
        at,
        time_ns,
        name,
        intern(source),  # of thousands of frames one text
        intern(topic),
        stamp_ns,
        intern(kind),
        width,
        height,
        checksum,
        intern(label),
        tuple(Box(label=intern(n), x0=a, y0=b, x1=c, y1=d) for n, a, b, c, d in boxes),
        seen,
    )
