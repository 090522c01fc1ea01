"""When runs begin by themselves: every so often, or one after the other."""

import logging
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloud_server.runs.run_store import Run
from fleet_model.durable import remove_durably, write_durably
from fleet_model.errors import FleetError, SettingsError, StorageError
from fleet_model.settings import explain

BACKOFF_S, MAX_BACKOFF_S = 60.0, 3600.0  # after failures in a row: 1 min, 2 min, ... 1 h
MIN_EVERY_S = 60.0
TICK_S = 1.0  # between looks at the file
NO_LOCK = nullcontext()
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
log = logging.getLogger(__name__)


class Schedule(BaseModel):
    """What the operator has asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(ge=1, le=10_000)  # of every run
    every_s: float | None = Field(default=None, ge=MIN_EVERY_S)  # None: continuous
    set_at: float  # Unix time

    def due_at(self, runs: list[Run]) -> float:
        """Return when the next run begins, Unix time; the past means at once.

        Args:
            runs: oldest first. Those that the schedule has not begun do not count.
        """
        mine = [run for run in runs if run.scheduled and run.started_at >= self.set_at]
        if not mine:
            return self.set_at
        last = mine[-1]
        if self.every_s is not None:
            return last.started_at + self.every_s
        failures = 0
        while failures < len(mine) and mine[-1 - failures].state == "failed":
            failures += 1
        wait_s = min(BACKOFF_S * 2.0 ** (failures - 1), MAX_BACKOFF_S) if failures else 0.0
        return (last.ended_at or last.started_at) + wait_s

    def is_due(self, runs: list[Run], now: float) -> bool:
        """Return whether a run begins now; one that was missed does, too."""
        if any(run.active for run in runs):
            return False
        # A clock that ran ahead for a while must not put the next run off for years.
        return self.due_at([run for run in runs if run.started_at <= now + MIN_EVERY_S]) <= now

    def set_by(self, now: float) -> "Schedule":
        """Return it as set now if a clock that ran ahead has set it: no run would count as its."""
        return self.model_copy(update={"set_at": now}) if self.set_at > now + MIN_EVERY_S else self

    def in_words(self) -> str:
        """Return the schedule as a person would say it."""
        rounds = f"{self.rounds} rounds"
        if self.every_s is None:
            return f"{rounds}, one run after the other"
        return f"{rounds} every {duration_in_words(self.every_s)}"


class ScheduleFile:
    """DIR/schedule.json: a running server follows it, the operator's commands change it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Schedule | None:
        """Return the schedule, None if there is none.

        Raises SettingsError if it is damaged, StorageError if the disk is.
        """
        try:
            return Schedule.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            keys, words = explain(error, Schedule)
            raise SettingsError(
                f"{self._path}: {': '.join([*keys, words])}; set it again with `cloud-server train "
                "DIR --every 24h`, or `cloud-server schedule clear DIR`"
            ) from None
        except OSError as error:
            raise StorageError(f"{self._path} cannot be read: {error.strerror}") from None

    def save(self, schedule: Schedule) -> None:
        """Replace the schedule; raises StorageError if the disk is full."""
        try:
            write_durably(self._path, schedule.model_dump_json(indent=1) + "\n")
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error.strerror}") from None

    def clear(self) -> bool:
        """Remove it; return whether there was one. Raises StorageError if it stays."""
        try:
            remove_durably(self._path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError(f"{self._path} cannot be removed: {error.strerror}") from None
        return True


def follow(
    file: ScheduleFile,
    *,
    runs: Callable[[], list[Run]],
    start: Callable[[int], object],
    pause: Callable[[float], bool],
    lock: AbstractContextManager[object] = NO_LOCK,
) -> None:
    """Start runs when they are due, until `pause` returns true.

    A look and the start that follows from it happen inside `lock`.
    """
    complaint = ""
    while not pause(TICK_S):
        try:
            with lock:
                _begin_if_due(file, runs(), start, time.time())
            complaint = ""
        except (FleetError, OSError) as error:  # whatever it is, the thread continues to look
            if str(error) != complaint:
                log.error("schedule: %s", error)
            complaint = str(error)


def _begin_if_due(
    file: ScheduleFile, runs: list[Run], start: Callable[[int], object], now: float
) -> None:
    found = file.load()
    if found is None:
        return
    schedule = found.set_by(now)
    if schedule is not found:  # on disk first: else every look would find it set just now
        file.save(schedule)
    if schedule.is_due(runs, now):
        start(schedule.rounds)


def parse_duration(text: str) -> float:
    """Return the seconds of "90s", "30m", "24h", "7d"; raises SettingsError for anything else."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])", text.strip())
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    if seconds < MIN_EVERY_S:
        raise SettingsError(f"{text!r}: expected at least a minute, e.g. 30m, 24h or 7d")
    return seconds


def duration_in_words(seconds: float) -> str:
    """Return what `parse_duration` reads, in the largest unit that fits."""
    for unit in ("d", "h", "m"):
        if seconds % UNITS[unit] == 0:
            return f"{seconds / UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"
