"""Sums over all closed rounds since the server directory was made, and the last of them."""

import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from cloud_server.state.history import Follower, kind_of
from cloud_server.state.round_record import RoundRecord

SECONDS = (1, 3, 10, 30, 60, 180, 600, 1800, 3600, 14_400)  # upper bounds of the histogram


@dataclass(slots=True)
class Totals:
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
        self.updates.update(kind_of(robot.outcome) for robot in record.robots)
        self.late += record.late
        self.update_bytes += sum(robot.update_bytes for robot in record.robots)
        self.examples += sum(robot.weight for robot in record.robots)
        self.last = record


class Ledger:
    """Totals that follow a history file: a look reads what was added, whoever added it."""

    def __init__(self, path: Path) -> None:
        self._follower = Follower(path)
        self._totals = Totals()
        self._lock = threading.Lock()

    def totals(self) -> Totals:
        """Return the sums of now; they belong to the caller."""
        with self._lock:
            for record in self._follower.new():
                self._totals.add(record)
            totals = self._totals
            return replace(totals, within=totals.within.copy(), updates=totals.updates.copy())
