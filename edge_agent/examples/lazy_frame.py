"""A frame whose bytes are read when they are asked for."""

import zlib
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from edge_agent.data.frames.folder import read_image
from edge_agent.data.label_formats.data_set import LabelledEntry
from edge_agent.data.labels import LabelSettings, open_recording
from edge_agent.examples.frame_index import FrameRow
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.pictures.image_file import UPRIGHT, image_frame
from fleet_model.types import Frame, RgbImage, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

_WINDOW = 64  # entries that are kept: threads ask in nearly the order of the recording
_PASSES = 3  # so many over a recording; after that all entries are kept


class LazyFrame:
    """A Frame whose bytes are read at every use, and are then those that were seen before."""

    __slots__ = ("_finder", "_row")

    def __init__(self, row: FrameRow, finder: "FrameFinder | None") -> None:
        """Keep what is known of a frame.

        Args:
            row: what is known.
            finder: finds it in its recording; None: it is an image file.
        """
        self._row, self._finder = row, finder

    @property
    def source(self) -> str:
        """See Frame."""
        return self._row.source

    @property
    def topic(self) -> str:
        """See Frame."""
        return self._row.topic

    @property
    def stamp_ns(self) -> int:
        """See Frame."""
        return self._row.stamp_ns

    @property
    def format(self) -> str:
        """See Frame."""
        return self._row.format

    @property
    def width(self) -> int:
        """See Frame."""
        return self._row.width

    @property
    def height(self) -> int:
        """See Frame."""
        return self._row.height

    @property
    def checksum(self) -> int:
        """The crc32 of the frame's bytes."""
        return self._row.checksum

    @property
    def data(self) -> bytes | memoryview:
        """The payload; see Frame. Raises FrameError, also if it has changed."""
        return self._read().data

    def decode(self) -> RgbImage:
        """Return the picture; see Frame. Raises FrameError."""
        return self._read().decode()

    def reduced(self, at_least: int) -> RgbImage:
        """Return the picture, perhaps scaled down; see Frame. Raises FrameError."""
        frame = self._read()
        return frame.reduced(at_least) if frame.reduced else frame.decode()

    def pixels(self) -> Tensor:
        """Return the picture as the sensor gave it; see Frame. Raises FrameError."""
        frame = self._read()
        return frame.pixels() if frame.pixels else frame.decode()

    def _read(self) -> Frame:
        row = self._row
        if self._finder:
            frame = self._finder.read(row.file, row.at)
        else:
            file = Path(row.file)
            where = f"{file.parent.name}/{file.name}"
            given = row.source, row.topic, row.stamp_ns
            upright = row.format.startswith(UPRIGHT)
            frame = image_frame(read_image(file, where), *given, where, upright=upright)
        if zlib.crc32(frame.data) != row.checksum:
            where = f"{row.source}/{row.topic.lstrip('/')} at {row.stamp_ns}"
            raise FrameError(f"{where}: was replaced while it was used", "changed frame")
        return frame


class FrameFinder:
    """Finds frames of a recording a second time. In their order it takes one pass in flat memory.

    Safe in threads.
    """

    def __init__(self, path: Path, settings: LabelSettings) -> None:
        """Keep what to read; nothing is opened yet."""
        self._path = path
        self._settings = settings._replace(label_topic="")  # only the frames are wanted
        self._lock = Lock()
        self._entries: Iterator[LabelledEntry] = iter(())
        self._passed: dict[tuple[str, int], LabelledEntry] = {}
        self._passes = 0

    def read(self, file: str, at: int) -> Frame:
        """Return a frame by its place; raises FrameError if there is none any more."""
        with self._lock:
            entry = self._find((file, at)) or self._from_the_start((file, at))
        if entry is None:
            raise FrameError(f"{self._path.name}: has changed while it was used", "changed frame")
        return entry.load().frame

    def _from_the_start(self, wanted: tuple[str, int]) -> LabelledEntry | None:
        recording = open_recording(self._path, self._settings)
        self._entries = recording.entries(DamageLog())
        self._passed.clear()
        self._passes += 1
        return self._find(wanted)

    def _find(self, wanted: tuple[str, int]) -> LabelledEntry | None:
        if wanted in self._passed:
            return self._passed[wanted]
        for entry in self._entries:
            assert entry.place is not None
            place = str(entry.place.file), entry.place.at
            self._passed[place] = entry
            if len(self._passed) > _WINDOW and self._passes <= _PASSES:
                del self._passed[next(iter(self._passed))]
            if place == wanted:
                return entry
        return None
