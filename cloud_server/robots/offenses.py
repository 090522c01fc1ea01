"""How robots behave in rounds: refused updates in a row, the last verdict, suspension.

Counted in the server's own file; the register belongs to the operator's commands, which any process
may run. An approval needs no write here: it changes `Robot.counted_from`, and what was counted
before that moment counts no more. Server and ServerApp apart (server_app.py) count in one file.
"""

import fcntl
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cloud_server.robots.register import MAX_REASON, Register, Robot
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError
from fleet_model.protocol.outcome import Outcome, parse_outcome
from fleet_model.protocol.report import Standing

log = logging.getLogger(__name__)
FORMER_NAME = "conduct.json"
_Stamp: TypeAlias = tuple[int, int, int]  # of a file: changes with every writing


class OffenseCount(BaseModel):
    """What is counted of one robot."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    counted_from: str  # the robot's, when this was counted
    offenses: int = 0  # refused updates in a row
    run: str
    round: int
    verdict: Annotated[Outcome, BeforeValidator(parse_outcome)]
    counted_run: str = ""  # of the last update of it that was folded in
    counted_version: int = 0

    @property
    def text(self) -> str:
        """Return the last verdict with the run and round it is of."""
        return f"run {self.run} round {self.round}: {self.verdict.text}"

    @property
    def is_told(self) -> bool:
        """Return whether its robot is told: it was refused, or does not count in full."""
        verdict = self.verdict
        return verdict.kind == "refused" or (verdict.kind == "accepted" and verdict.words != "")


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")
    recorded: str = ""  # the last record that was counted: after a crash it may come again
    robots: dict[str, OffenseCount] = Field(default_factory=dict)


class Offenses:
    """Counts after every round and suspends through the register; thread-safe."""

    def __init__(self, path: Path, register: Register, suspend_after: int) -> None:
        """Read what was counted.

        Args:
            path: the file; made when the first round is recorded.
            register: where robots are suspended.
            suspend_after: refused updates in a row; 0: never.
        """
        self._path = path
        self._register = register
        self._suspend_after = suspend_after
        self._lock = threading.Lock()  # of the counting, which takes a disk and the register
        self._reading = threading.Lock()  # of the two below
        self._file = _File()
        self._stamp: _Stamp | None = None
        _adopt(path)
        self._newest()

    def record(self, record: RoundRecord) -> None:
        """Count one round, failed or closed, once however often it is told; raises nothing."""
        # The seconds tell a round that failed and was tried again from one that is told twice.
        mark = f"{record.run}/{record.round}/{record.version}/{record.seconds}"
        with self._counting():
            file = self._newest()
            if mark == file.recorded:
                return
            try:
                admitted = {robot.name: robot for robot in self._register.robots()}
            except SettingsError as error:
                log.error("round %d is not counted for anybody: %s", record.round, error)
                return
            entries = {n: e for n, e in file.robots.items() if n in admitted}
            for one in record.robots:
                robot = admitted.get(one.name)
                if robot is not None:  # else it was forgotten while the round went on
                    entries[robot.name] = self._counted(robot, entries.get(robot.name), one, record)
            # Suspended before it is counted: a crash in between counts it again, to the same end.
            for name, entry in entries.items():
                self._judge(admitted[name], entry)
            self._save(_File(recorded=mark, robots=entries))

    def counts(self, robots: Iterable[Robot]) -> Mapping[str, tuple[int, str]]:
        """Return robot -> what `in_a_row` and `verdict` say; the file is looked at once."""
        known = self._newest().robots
        found = {}
        for robot in robots:
            entry = known.get(robot.name)
            if entry is not None and entry.counted_from == robot.counted_from:
                found[robot.name] = entry.offenses, entry.text
        return found

    def in_a_row(self, robot: Robot) -> int:
        """Return how many of its updates in a row were refused since it was approved."""
        entry = self._entry(robot)
        return 0 if entry is None else entry.offenses

    def verdict(self, robot: Robot) -> str:
        """Return what its last round said of it, "" if it was in none."""
        entry = self._entry(robot)
        return "" if entry is None else entry.text

    def standing(self, robot: Robot) -> Standing:
        """Return what an admitted robot is told with every answer; it is not revoked."""
        state, entry = robot.state, self._entry(robot)
        if state == "revoked":  # such a robot is refused before it is told anything
            raise SettingsError(f"robot {robot.name} is revoked; it has no standing")
        told = entry is not None and entry.is_told
        last = self._newest().robots.get(robot.name)  # an approval does not undo what was folded in
        return Standing(
            state=state,
            reason=robot.reason or _WAYS_BACK[state].format(name=robot.name),
            notice=entry.text if told and entry else "",
            notice_id=f"{entry.run}/{entry.round}" if told and entry else "",
            counted_run=last.counted_run if last else "",
            counted_version=last.counted_version if last else 0,
        )

    def _entry(self, robot: Robot) -> OffenseCount | None:
        entry = self._newest().robots.get(robot.name)
        return entry if entry is not None and entry.counted_from == robot.counted_from else None

    @staticmethod
    def _counted(
        robot: Robot, before: OffenseCount | None, one: RobotRecord, record: RoundRecord
    ) -> OffenseCount:
        offenses = 0
        if before is not None and before.counted_from == robot.counted_from:
            offenses = before.offenses
        if one.accepted:
            offenses = 0
        elif one.refused:
            offenses += 1
        counted = (before.counted_run, before.counted_version) if before is not None else ("", 0)
        if one.accepted:
            counted = (record.run, record.version)
        return OffenseCount(
            counted_from=robot.counted_from,
            offenses=offenses,
            run=record.run,
            round=record.round,
            verdict=one.outcome,
            counted_run=counted[0],
            counted_version=counted[1],
        )

    def _judge(self, robot: Robot, entry: OffenseCount) -> None:
        bound = 0 < self._suspend_after <= entry.offenses
        if not bound or robot.state != "approved" or entry.counted_from != robot.counted_from:
            return
        reason = f"{entry.offenses} refused updates in a row, the last: {entry.text}"
        log.warning("robot %s is suspended: %s", robot.name, reason)
        try:
            self._register.suspend(robot.name, reason[:MAX_REASON])
        except (SettingsError, OSError) as error:  # forgotten or revoked in between, a full disk
            log.error("robot %s could not be suspended: %s", robot.name, error)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Let one thread of one process at a time read, count, write."""
        with self._lock, ExitStack() as stack:
            try:
                lock = self._path.with_name(f".{self._path.name}.lock").open("a")
                fcntl.flock(stack.enter_context(lock), fcntl.LOCK_EX)
            except OSError as error:  # a full disk fails no round
                log.warning("%s: counted without a lock (%s)", self._path, error)
            yield

    def _newest(self) -> _File:
        """Return what was counted, read again when another process has counted."""
        with self._reading:
            stamp = _stamp(self._path)
            if stamp is not None and stamp != self._stamp:
                self._file, self._stamp = _read(self._path) or self._file, stamp
            return self._file

    def _save(self, file: _File) -> None:
        with self._reading:
            self._file = file
        try:
            write_durably(self._path, file.model_dump_json(indent=1) + "\n")
        except OSError as error:
            log.error("%s: cannot be written (%s); a restart forgets it", self._path, error)


_WAYS_BACK: Mapping[str, str] = {
    "approved": "",
    "pending": "waits for the operator: cloud-server robots approve DIR {name}",
    "suspended": "suspended by the operator",
}


def _adopt(path: Path) -> None:
    """Give the file of an older release its new name.

    One rename: killed at any moment, or raced by another process, the counts are there once.
    """
    former = path.with_name(FORMER_NAME)
    try:
        if former.exists() and not path.exists():
            former.rename(path)
            log.info("%s is now called %s", FORMER_NAME, path.name)
    except FileNotFoundError:  # another process has just done it
        pass
    except OSError as error:
        log.error("%s cannot be renamed to %s (%s); its counts are not used", former, path, error)


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:  # not there yet, or no longer: what is in memory is the newest
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_size)


def _read(path: Path) -> _File | None:
    """Return what was counted; a damaged file costs only the counts, the register has the rest."""
    try:
        return _File.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        log.warning("%s: not readable (%s); what it held is lost", path, type(error).__name__)
        return None
