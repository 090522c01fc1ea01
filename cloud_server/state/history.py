"""What closed rounds have left behind: read from the history, listed for people and programs."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history_file import all_lines, newest_lines, read_line
from cloud_server.state.round_record import (
    RESERVED,
    ROBOT_COLUMNS,
    ROUND_COLUMNS,
    RobotRecord,
    RoundRecord,
)
from fleet_model.errors import one_line

OTHERS = "other_metrics"
MAX_METRICS = 200  # columns: robots choose the names, and may choose others every round


class ClosedRounds:
    """The closed rounds of a server by version, each read from disk when its turn comes.

    Those that the history lost come from their checkpoints. It can be gone over again and again.
    """

    def __init__(
        self, server_dir: ServerDirectory, run: str | None = None, *, newest: int | None = None
    ) -> None:
        """Find where they are; `newest` of them, all if it is None.

        Args:
            server_dir: its server may run.
            run: only this run's rounds.
            newest: so many; the history is then read from its end.
        """
        self._file = server_dir.history
        self._checkpoints = Checkpoints(server_dir.checkpoints)
        self._run = run
        lines = all_lines(self._file) if newest is None else newest_lines(self._file)
        self._places: dict[tuple[str, int, int], int] = {}  # run, round, version -> offset
        known: set[int] = set()
        for line in lines:
            if (key := line.key()) is None:
                continue
            known.add(key[2])
            if run in (None, key[0]):
                self._places.setdefault(key, line.offset)
            if newest is not None and len(self._places) >= newest:
                break
        oldest = -1 if newest is None or len(self._places) < newest else min(known)
        self._lost = [v for v in self._checkpoints.saved() if v > oldest and v not in known]

    def __iter__(self) -> Iterator[RoundRecord]:
        """Yield them, oldest first."""
        places = [(version, offset) for (_, _, version), offset in self._places.items()]
        places += [(version, -1) for version in self._lost]
        for version, offset in sorted(places):
            record = read_line(self._file, offset).record() if offset >= 0 else None
            record = record or self._checkpoints.record(version)
            if record is not None and self._run in (None, record.run):
                yield record


def write_csv(records: Iterable[RoundRecord], stream: IO[str]) -> None:
    """Write one row per robot and round; the robots' metrics are the last columns, by name.

    `records` are gone over twice: first for the names of the metrics. The MAX_METRICS that are
    reported most have columns; how many more there were is in the last one.
    """
    counts = Counter(name for r in records for robot in r.robots for name in robot.metrics)
    often = counts.most_common(MAX_METRICS + len(RESERVED))
    metrics = sorted([name for name, _ in often if name not in RESERVED][:MAX_METRICS])
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow((*ROUND_COLUMNS, *ROBOT_COLUMNS, *map(_text, metrics), OTHERS))
    for record in records:
        for robot in record.robots:
            others = len(robot.metrics.keys() - set(metrics))
            writer.writerow((*_round_cells(record), *_robot_cells(robot, metrics), others))


def _round_cells(record: RoundRecord) -> Iterable[object]:
    return (
        _text(record.run), record.round, record.version, record.mode, round(record.seconds, 3),
        record.asked, record.late, record.request_bytes,
    )  # fmt: skip


def _robot_cells(robot: RobotRecord, metrics: Sequence[str]) -> Iterable[object]:
    return (
        _text(robot.name), _text(robot.site), robot.outcome.kind, _text(robot.outcome.text),
        robot.num_examples, robot.weight, str(robot.capped).lower(), robot.num_steps,
        robot.staleness, robot.norm, robot.update_bytes, robot.cut_to,
        json.dumps(robot.label_counts, ensure_ascii=False) if robot.label_counts else "",
        _text(robot.codec),
        *(robot.metrics.get(name, "") for name in metrics),
    )  # fmt: skip


def _text(words: str) -> str:
    """Return a robot's words on one line, such that no spreadsheet takes them for a formula."""
    line = one_line(words)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line
