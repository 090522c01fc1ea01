"""Sums over all closed rounds since the server directory was made, and the last of them."""

import logging
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cloud_server.state.history_file import START, Follower, Position, read_line
from cloud_server.state.round_record import RoundRecord
from fleet_model.durable import write_durably

SECONDS = (1, 3, 10, 30, 60, 180, 600, 1800, 3600, 14_400)  # upper bounds of the histogram
SAVE_ROUNDS = 64  # a server that starts parses fewer lines than these: 20 ms with 50 robots
log = logging.getLogger(__name__)


@dataclass(slots=True)
class HistoryTotals:
    """What the history adds up to."""

    rounds: int = 0
    seconds: float = 0.0
    within: Counter[int] = field(default_factory=Counter)  # bound of SECONDS -> rounds up to it
    updates: Counter[str] = field(default_factory=Counter)  # kind of outcome -> robots' rounds
    late: int = 0
    update_bytes: int = 0
    examples: int = 0
    last: RoundRecord | None = None

    def add(self, record: RoundRecord) -> None:
        """Count one round."""
        self.rounds += 1
        self.seconds += record.seconds
        self.within.update(bound for bound in SECONDS if record.seconds <= bound)
        self.updates.update(robot.outcome.kind for robot in record.robots)
        self.late += record.late
        self.update_bytes += sum(robot.update_bytes for robot in record.robots)
        self.examples += sum(robot.weight for robot in record.robots)
        self.last = record


@dataclass(frozen=True, slots=True)
class _Kept:
    """Sums up to a position of the history, without the last round; see RunningTotals."""

    position: Position
    totals: HistoryTotals


_KEPT = TypeAdapter(_Kept)


class RunningTotals:
    """Totals that follow a history file: a look reads what was added, whoever added it.

    After every SAVE_ROUNDS rounds the sums are written down, so that a server that starts does not
    read years of history. The file may be removed: it is made again from the history.
    """

    def __init__(self, history: Path, kept: Path) -> None:
        """Continue from the file `kept`, if it belongs to this history."""
        self._kept = kept
        self._lock = threading.Lock()
        known = _load(kept)
        self._totals, self._follower = known.totals, Follower(history, known.position)
        self._unsaved = 0
        if known.totals.rounds and not self._forgotten():
            before = known.position.offset - known.position.last_bytes
            self._totals.last = read_line(history, before).record()

    def totals(self) -> HistoryTotals:
        """Return the sums of now; they belong to the caller."""
        with self._lock:
            self._forgotten()
            for record in self._follower.new():
                self._totals.add(record)
                self._unsaved += 1
            if self._unsaved >= SAVE_ROUNDS:
                self._save()
            totals = self._totals
            return replace(totals, within=totals.within.copy(), updates=totals.updates.copy())

    def _forgotten(self) -> bool:
        """Begin with nothing if the history is another one than what was summed up."""
        replaced = self._follower.is_replaced()
        if replaced:
            self._totals, self._unsaved = HistoryTotals(), 0
        return replaced

    def _save(self) -> None:
        kept = _Kept(self._follower.position, replace(self._totals, last=None))
        try:
            write_durably(self._kept, _KEPT.dump_json(kept) + b"\n")
            self._unsaved = 0
        except OSError as error:
            log.warning("%s: cannot be written (%s)", self._kept, error)


def _load(kept: Path) -> _Kept:
    try:
        return _KEPT.validate_json(kept.read_bytes())
    except FileNotFoundError:
        return _Kept(START, HistoryTotals())
    except (OSError, ValidationError) as error:
        log.warning("%s: not readable (%s); made again", kept, type(error).__name__)
        return _Kept(START, HistoryTotals())
