"""When robots were last seen, what they reported, and which unknown keys asked.

Kept over a restart: a robot that was seen a minute before it is not "never seen" after it. The file
is written at most every WRITE_S, so a crash forgets that much and no more. It is written
immediately when a robot becomes busy or free, because a ServerApp apart chooses robots by the file,
and when a proof names this server for the first time.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloud_server.robots.register import Robot
from cloud_server.robots.twins import Twins
from fleet_model.durable import write_durably
from fleet_model.protocol.proof import fingerprint
from fleet_model.protocol.report import RobotReport

WRITE_S = 30.0
MAX_WAITING = 100  # unknown keys: strangers must not fill the memory
WAITING_S = 24 * 3600.0  # a key that has not asked for a day waits no more
log = logging.getLogger(__name__)


class Seen(BaseModel):
    """The last look of one robot."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at_s: float  # Unix time
    report: RobotReport | None = None  # None: an agent that sends none, or not yet
    active_version: int | None = None  # that it predicts with
    protocol: int | None = None  # None: an agent that announces none
    channel: str = ""  # that it asked for
    # The key and the approval under which its proofs named this server; "": never.
    named_server: str = ""

    @property
    def busy(self) -> bool:
        """Return whether it wants no training."""
        return self.report is not None and bool(self.report.busy)


class Waiting(BaseModel):
    """An unknown key that asked with a right proof."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str  # OpenSSH public line
    at_s: float  # Unix time of the last time

    @property
    def fingerprint(self) -> str:
        """Return what `edge-agent enroll` and `ssh-keygen -l` print for the key."""
        return fingerprint(self.key)

    @property
    def admit(self) -> str:
        """Return the command that admits it, with names to fill in."""
        return admit_command(self.key)


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")
    robots: dict[str, Seen] = Field(default_factory=dict)
    waiting: tuple[Waiting, ...] = ()


class LastSeen:
    """Thread-safe. Names are the register's; a robot that is forgotten there fades with `keep`."""

    def __init__(self, path: Path, now_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now_s = now_s
        self.twins = Twins(now_s)
        self._lock = threading.Lock()  # of the memory, never held while the disk is slow
        self._writing = threading.Lock()
        file = _read(path)
        self._seen = dict(file.robots)
        self._waiting = {waiting.key: waiting for waiting in file.waiting}
        self._refusals: dict[str, str] = {}  # robot -> why its last request was refused
        self._written_s = now_s()
        self._changed = self._urgent = False

    def see(self, name: str) -> None:
        """Remember that a robot asked for something."""
        self._put(name, {})

    def looked(
        self,
        name: str,
        active_version: int | None,
        report: RobotReport | None,
        protocol: int | None = None,
        agent: str = "",
        channel: str = "",
    ) -> None:
        """Remember what a robot reported with its look at a channel; `agent` is as in Twins."""
        self.twins.saw(name, agent)
        if report is not None and report.model_version is not None:
            active_version = report.model_version
        told = {
            "active_version": active_version,
            "report": report,
            "protocol": protocol,
            "channel": channel,
        }
        self._put(name, told)
        self._write_if_urgent()

    def wait(self, key: str) -> None:
        """Remember an unknown key; of too many the one that asked longest ago is dropped."""
        now_s = self._now_s()
        with self._lock:
            self._waiting.pop(key, None)  # the newest stands last
            self._waiting[key] = Waiting(key=key, at_s=now_s)
            if len(self._waiting) > MAX_WAITING:
                del self._waiting[next(iter(self._waiting))]
            self._changed = True

    def names_server(self, robot: Robot) -> None:
        """Remember that a robot's proof named this server, also over a crash."""
        if not self.has_named_server(robot):
            self._put(robot.name, {"named_server": _approval(robot)})
            self._write_if_urgent()

    def has_named_server(self, robot: Robot) -> bool:
        """Return whether it did, with this key and since an operator approved it last."""
        seen = self._seen.get(robot.name)
        return seen is not None and seen.named_server == _approval(robot)

    def refuse(self, name: str, reason: str) -> None:
        """Remember why a robot of the register was refused, until it is seen; not on disk."""
        with self._lock:
            self._refusals[name] = reason

    def refusal(self, name: str) -> str:
        """Return why a robot's last request was refused, "" if it was not."""
        return self._refusals.get(name, "")

    def of(self, name: str) -> Seen | None:
        """Return a robot's last look, None if it was never seen."""
        return self._seen.get(name)

    def last_seen_s(self, name: str) -> float | None:
        """Return how many seconds ago a robot was seen, None if never."""
        seen = self._seen.get(name)
        return None if seen is None else self.age_s(seen.at_s)

    def age_s(self, at_s: float) -> float:
        """Return how long ago that was; 0 if the clock was set back since."""
        return max(self._now_s() - at_s, 0.0)

    def report(self, name: str) -> RobotReport | None:
        """Return what a robot reported last."""
        seen = self._seen.get(name)
        return None if seen is None else seen.report

    def protocol(self, name: str) -> int | None:
        """Return the protocol number that a robot announced last, None if it announces none."""
        seen = self._seen.get(name)
        return None if seen is None else seen.protocol

    def waiting(self, known: Sequence[str] = ()) -> list[Waiting]:
        """Return the unknown keys of the last day, the newest first, without those `known` now."""
        oldest_s = self._now_s() - WAITING_S
        with self._lock:
            keys = list(self._waiting.values())
        return [one for one in reversed(keys) if one.key not in known and one.at_s >= oldest_s]

    def save_if_due(self, robots: Sequence[Robot]) -> None:
        """Write what changed, at most every WRITE_S; who is not among `robots` is dropped."""
        with self._lock:
            elapsed_s = self._now_s() - self._written_s
            if not self._changed or 0 <= elapsed_s < WRITE_S:  # a clock set back writes at once
                return
            self._written_s = self._now_s()
        self.save(robots)

    def save(self, robots: Sequence[Robot]) -> None:
        """Write now: at the end of the server."""
        with self._writing:
            with self._lock:
                names = {robot.name for robot in robots}
                self._seen = {n: seen for n, seen in self._seen.items() if n in names}
                self._refusals = {n: why for n, why in self._refusals.items() if n in names}
            self._write()

    def _write_if_urgent(self) -> None:
        if self._urgent:
            with self._writing:
                if self._urgent:  # else the thread before has written this change, too
                    self._write()

    def _write(self) -> None:
        """Write all there is; the caller holds `_writing`."""
        with self._lock:
            file = _File(robots=self._seen, waiting=tuple(self._waiting.values()))
            self._changed = self._urgent = False
        try:
            write_durably(self._path, file.model_dump_json() + "\n", mode=0o600)
        except OSError as error:  # a full disk must not refuse robots
            log.warning("%s: cannot be written (%s); a restart forgets it", self._path, error)

    def _put(self, name: str, changes: Mapping[str, object]) -> None:
        with self._lock:
            self._refusals.pop(name, None)
            before = self._seen.get(name) or Seen(at_s=0.0)
            now = before.model_copy(update={"at_s": self._now_s(), **changes})
            self._seen[name] = now
            self._changed = True
            self._urgent |= now.busy != before.busy or now.named_server != before.named_server


def admit_command(key: str) -> str:
    """Return the command that admits a key, with what the operator has to fill in."""
    return f"cloud-server robots add DIR NAME --site SITE --key '{key}'"


def _approval(robot: Robot) -> str:
    return f"{robot.fingerprint} {robot.counted_from}"


def installed_versions(path: Path) -> set[int]:
    """Return the versions that robots predict with, as a server wrote them down WRITE_S ago."""
    robots = _read(path).robots.values()
    return {seen.active_version for seen in robots if seen.active_version is not None}


def _read(path: Path) -> _File:
    """Return what was written; a damaged file costs only the memory of who was seen."""
    try:
        return _File.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return _File()
    except (OSError, ValidationError) as error:
        log.warning("%s: not readable (%s); robots count as never seen", path, type(error).__name__)
        return _File()
