"""Closed rounds as event files for TensorBoard: DIR/tensorboard/<run>, one point per model version.

The files are drawn from the history, so the folder can be removed at any time, or switched on late,
and a round that a crash kept out of them is added after the next one. TensorBoard's own
EventFileWriter loads TensorFlow where that is installed; this server must not, and writes the
records itself.
"""

import logging
import statistics
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from google_crc32c import value as crc32c

from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history_file import START, Follower, Position, newest_lines
from cloud_server.state.round_record import RoundRecord
from fleet_model.errors import SettingsError

EVENTS = "events.out.tfevents.fleetlearn"  # TensorBoard looks for "tfevents" in the name
HEADER = struct.Struct("<QI")  # length of the data, its checksum
FOOTER = struct.Struct("<I")  # checksum of the data
log = logging.getLogger(__name__)


class TensorBoardWriter:
    """The event files of one server directory, of one thread."""

    def __init__(self, server_dir: ServerDirectory, now_s: Callable[[], float] = time.time) -> None:
        """Raise SettingsError unless the extra is installed."""
        try:
            from tensorboard.compat.proto.event_pb2 import Event
        except ImportError:
            raise SettingsError(
                "log.tensorboard = true needs TensorBoard: pip install 'fleetlearn[tensorboard]', "
                "or set it to false"
            ) from None
        self._event = Event
        self._root = server_dir.tensorboard
        self._path = server_dir.history
        self._history: Follower | None = None  # until the first look
        self._now_s = now_s
        self._last: dict[str, int] = {}  # run -> the newest version in its file

    def catch_up(self) -> None:
        """Add the rounds that the history has and the files have not; never fails a run."""
        try:
            if self._history is None:
                self._history = Follower(self._path, self._drawn())
            for record in self._history.new():
                self._add(record)
        except OSError as error:
            log.warning("%s: cannot be written (%s)", self._root, error)

    def _drawn(self) -> Position:
        """Return how far earlier processes have drawn: behind the newest round that has a point."""
        for line in newest_lines(self._path):
            key = line.key()
            if key is not None and key[2] <= self._newest(key[0]):
                return line.position()
        return START

    def _newest(self, run: str) -> int:
        """Return the newest version in a run's file, -1 for none; the file is there afterwards."""
        if run not in self._last:
            path = self._file(run)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._last[run] = self._resume(path)
        return self._last[run]

    def _file(self, run: str) -> Path:
        return self._root / Path(run).name / EVENTS

    def _add(self, record: RoundRecord) -> None:
        if record.version <= self._newest(record.run):
            return
        event = self._event(wall_time=self._now_s(), step=record.version)
        for tag, value in scalars(record).items():
            event.summary.value.add(tag=tag, simple_value=value)
        with self._file(record.run).open("ab") as stream:
            _write(stream, event.SerializeToString())
        self._last[record.run] = record.version

    def _resume(self, path: Path) -> int:
        """Cut a torn end off; return the newest version in the file, -1 for none."""
        newest, end = -1, 0
        with path.open("ab+") as stream:
            stream.seek(0)
            for data in _records(stream):
                event: Any = self._event.FromString(data)
                if event.HasField("summary"):
                    newest = event.step
                end = stream.tell()
            stream.truncate(end)
            if end == 0:
                version = self._event(wall_time=self._now_s(), file_version="brain.Event:2")
                _write(stream, version.SerializeToString())
        return newest


def scalars(record: RoundRecord) -> Mapping[str, float]:
    """Return tag -> value of one round."""
    robots = record.robots
    norms = [robot.norm for robot in robots if robot.accepted]
    kinds = Counter(robot.outcome.kind for robot in robots)
    return {
        **{f"held_out/{name}": value for name, value in record.metrics.items()},
        "round/seconds": record.seconds,
        "round/asked": record.asked,
        "round/late": record.late,
        "round/update_mb": sum(robot.update_bytes for robot in robots) / 1e6,
        "round/examples": sum(robot.weight for robot in robots),
        "norm/median": statistics.median_low(norms) if norms else 0.0,
        "norm/largest": max(norms, default=0.0),
        **{f"robots/{kind}": count for kind, count in kinds.items()},
    }


def _write(stream: BinaryIO, data: bytes) -> None:
    length = struct.pack("<Q", len(data))
    header = HEADER.pack(len(data), _masked(length))
    stream.write(header + data + FOOTER.pack(_masked(data)))  # at once: readers follow the file


def _records(stream: BinaryIO) -> Iterator[bytes]:
    """Yield whole records, the stream behind each; ends before the first that is torn."""
    while len(header := stream.read(HEADER.size)) == HEADER.size:
        length, checksum = HEADER.unpack(header)
        if checksum != _masked(header[:8]):
            return
        data, footer = stream.read(length), stream.read(FOOTER.size)
        if len(footer) < FOOTER.size or FOOTER.unpack(footer) != (_masked(data),):
            return
        yield data


def _masked(data: bytes) -> int:
    """Return the checksum as TensorFlow's record files hold it."""
    crc = crc32c(data)
    return int((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
