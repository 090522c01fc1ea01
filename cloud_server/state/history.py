"""What closed rounds have left behind: read from the history, listed for people and programs."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import (
    ACCEPTED,
    LATE,
    NO_REPLY,
    NOT_ADMITTED,
    NOT_REACHED,
    REFUSED,
    WENT_OFFLINE,
    RobotRecord,
    RoundRecord,
    parse_record,
)

# How an outcome begins -> its kind. Whatever a robot said in its own words is "failed".
KINDS = {
    ACCEPTED: "accepted",
    REFUSED: "refused",
    NO_REPLY: "no_reply",
    LATE: "no_reply",
    WENT_OFFLINE: "no_reply",
    NOT_ADMITTED: "no_reply",
    NOT_REACHED: "not_reached",
    "busy": "busy",
}
FAILED = "failed"
ROUND_COLUMNS = ("run", "round", "version", "mode", "seconds", "asked", "late")
ROBOT_COLUMNS = (
    "robot", "site", "verdict", "outcome", "num_examples", "weight", "capped", "num_steps",
    "staleness", "norm", "update_bytes",
)  # fmt: skip


def closed_rounds(server_dir: ServerDirectory, run: str | None = None) -> list[RoundRecord]:
    """Return the rounds by version; those that the history lost come from their checkpoints."""
    records = {(r.run, r.round, r.version): r for r in Follower(server_dir.history).new()}
    for record in Checkpoints(server_dir.checkpoints).records():
        records.setdefault((record.run, record.round, record.version), record)
    chosen = (r for r in records.values() if run is None or r.run == run)
    return sorted(chosen, key=lambda record: record.version)


def kind_of(outcome: str) -> str:
    """Return accepted, refused, no_reply, not_reached, busy or failed."""
    return next((kind for begin, kind in KINDS.items() if outcome.startswith(begin)), FAILED)


def write_csv(records: Sequence[RoundRecord], stream: IO[str]) -> None:
    """Write one row a robot of a round; the robots' metrics are the last columns, by name."""
    metrics = sorted({name for r in records for robot in r.robots for name in robot.metrics})
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow((*ROUND_COLUMNS, *ROBOT_COLUMNS, *map(_text, metrics)))
    for record in records:
        for robot in record.robots:
            writer.writerow((*_round_cells(record), *_robot_cells(robot, metrics)))


class Follower:
    """Read the rounds that were added to a history file since the last look.

    A line that a power cut has torn is left out; a file that was replaced is read from its start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._offset = 0

    def new(self) -> Iterator[RoundRecord]:
        """Yield the records of whole lines."""
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            status = os.fstat(stream.fileno())
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._inode, self._offset = status.st_ino, 0
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # somebody is writing it
                self._offset += len(line)
                yield from _parsed(line)


def _parsed(line: bytes) -> Iterator[RoundRecord]:
    try:
        yield parse_record(line)
    except ValueError:
        return  # torn: the round's checkpoint holds the record, too


def _round_cells(record: RoundRecord) -> Iterable[object]:
    return (
        _text(record.run), record.round, record.version, record.mode, round(record.seconds, 3),
        record.asked, record.late,
    )  # fmt: skip


def _robot_cells(robot: RobotRecord, metrics: Sequence[str]) -> Iterable[object]:
    return (
        _text(robot.name), _text(robot.site), kind_of(robot.outcome), _text(robot.outcome),
        robot.num_examples, robot.weight, str(robot.capped).lower(), robot.num_steps,
        robot.staleness, robot.norm, robot.update_bytes,
        *(robot.metrics.get(name, "") for name in metrics),
    )  # fmt: skip


def _text(words: str) -> str:
    """Return a robot's words on one line, such that no spreadsheet takes them for a formula."""
    line = "".join(c if c.isprintable() else " " for c in words)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line
