"""Open one storage file of a bag, unpacking a compressed one, for as long as it is needed."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from edge_agent.data.frames.source import storage_suffix
from edge_agent.data.storage import STORAGE_FILES, StorageFile, Stored, Topic
from edge_agent.data.storage.compression import (
    MESSAGE_LIMIT,
    is_zstd,
    no_room,
    unpack_file,
    unpack_zstd,
)
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.loading import load_plugin


class OpenStorage:
    """A storage file that stays open until the last of its messages and this object are gone.

    A file that was compressed as a whole (x.mcap.zstd) is unpacked into the temporary directory;
    of one that was cut, what can be unpacked is read.

    Raises:
        FrameError: nothing in the file can be read.
        StorageError: the temporary directory has no room for the unpacked file.
    """

    def __init__(self, path: Path) -> None:
        """Open the file at `path`."""
        self.path = path
        suffix = storage_suffix(path.name)
        if not suffix:
            raise FrameError(f"{path.name}: expected {', '.join(STORAGE_FILES)}")
        self._cut: FrameError | None = None  # why the unpacked file ends too early
        kind = load_plugin(STORAGE_FILES, suffix)
        if path.suffix.lower() == ".zstd":
            with _temporary_folder(path) as folder:
                unpacked = Path(folder) / path.stem
                self._cut = unpack_file(path, unpacked)
                # The open file needs no name, so nothing is left behind however this process ends.
                self._file = cast("StorageFile", kind(unpacked).__enter__())
        else:
            self._file = cast("StorageFile", kind(path).__enter__())

    def topics(self) -> Sequence[Topic]:
        """Return every topic the file declares."""
        return self._file.topics()

    def messages(self, topics: Collection[str], damage: DamageLog) -> Iterator[Stored]:
        """Yield the messages of topics; see StorageFile. Messages compressed alone are unpacked."""
        found = DamageLog() if self._cut else damage
        for stored in self._file.messages(topics, found):
            yield Stored(stored.bag_ns, stored.topic, partial(self._load, stored))
        if self._cut:
            damage.add(self._cut.reason, str(self._cut))
            for kind, count, begins in ((d.kind, d.count, d.begins) for d in found.all()):
                if kind != "cut file":  # the same place again, seen from inside
                    damage.add(kind, begins, count)

    def _load(self, stored: Stored) -> bytes | memoryview:
        content = stored.load()
        # No CDR message begins like a zstd frame. ROS 1 has no such mode, and its bytes could.
        if is_zstd(content) and stored.topic.encoding != "ros1":
            where = f"{self.path.name}{stored.topic.name} at {stored.bag_ns}"
            advice = "compress the recording by chunk or file"
            return unpack_zstd(content, MESSAGE_LIMIT, where, "message decompression", advice)
        return content

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.__exit__(None, None, None)


def _temporary_folder(path: Path) -> "TemporaryDirectory[str]":
    try:
        return TemporaryDirectory(prefix="fleetlearn-bag-")
    except OSError as error:
        raise no_room(path, error) from None
