"""The register of robots: who may take part, under which name, at which site.

The register is a file that the operator's commands rewrite in one step; a running server reads it
again when it changes. A robot's site is the server's word, never the robot's.
"""

import fcntl
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import fingerprint, parse_public, public_line, utc_now
from fleet_model.settings import Expected, explain

log = logging.getLogger(__name__)
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
Name = Annotated[
    str,
    Field(pattern=NAME),
    Expected("letters, digits, '.', '_' and '-', at most 63, a letter or digit first"),
]
LINE = r"^\P{C}*$"  # one line without control characters: it is shown in terminals
MAX_REASON = 300
MAX_BEHIND = 10_000  # robots behind one relay
# pending: not yet approved; suspended: for now; both follow models and take no part in training.
# revoked: the key is refused everywhere, for good.
State: TypeAlias = Literal["pending", "approved", "suspended", "revoked"]


@lru_cache(maxsize=16384)  # 0.4 ms a key: a change of one robot must not read all others again
def _line(text: str) -> str:
    """Return the line without its comment; what is wrong is refused in words that quote nothing."""
    if text.lstrip().startswith("-----BEGIN"):
        raise ValueError("this is a private key; give the robot's public one, robot.pub")
    if text.lstrip().startswith("SHA256:"):
        raise ValueError("this is the fingerprint; give the line above it, `ecdsa-sha2-...`")
    try:
        line = public_line(parse_public(text))
    except SettingsError:
        line = ""
    if not line.startswith("ecdsa-sha2-nistp384 "):
        raise ValueError(
            "not an OpenSSH public key of a robot; expected one line `ecdsa-sha2-nistp384 ...`, "
            "as `edge-agent enroll` prints it"
        )
    return line


class Robot(BaseModel):
    """One admitted robot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    site: Name
    key: Annotated[str, AfterValidator(_line)]  # OpenSSH public line, kept without comment
    added_at: str
    state: State = "approved"
    reason: Annotated[str, Field(max_length=MAX_REASON, pattern=LINE)] = ""  # why not approved
    labels: tuple[Name, ...] = ()  # the operator's words, sorted
    approved_at: str = ""  # when an operator approved it again: its offenses begin anew
    speaks_for: int = Field(default=1, ge=1, le=MAX_BEHIND)  # a site relay: robots behind it

    @property
    def counted_from(self) -> str:
        """Return since when refused updates count against it; changes with every approval."""
        return self.approved_at or self.added_at

    @property
    def fingerprint(self) -> str:
        """Return what `ssh-keygen -l` prints for the key."""
        return fingerprint(self.key)


def _robot(**fields: object) -> Robot:
    try:
        return Robot.model_validate(fields)
    except ValidationError as error:
        keys, words = explain(error, Robot, show="key" not in error.errors()[0]["loc"])
        raise SettingsError(f"{'.'.join(keys)}: {words}") from None


def new_robot(
    name: str, site: str, key: str, *, pending: bool = False, labels: Iterable[str] = ()
) -> Robot:
    """Return a robot that is admitted now; raises SettingsError if a value is malformed."""
    return _robot(
        name=name,
        site=site,
        key=key,
        added_at=utc_now().isoformat(),
        state="pending" if pending else "approved",
        labels=tuple(sorted(set(labels))),
    )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    robots: tuple[Robot, ...] = ()

    @model_validator(mode="after")
    def _once(self) -> "_File":
        """Refuse a hand-made second entry: which of two states of a key would hold?"""
        for words in ([r.name for r in self.robots], [r.key for r in self.robots]):
            if twice := next((word for word, n in Counter(words).items() if n > 1), None):
                raise ValueError(f"{twice[-40:]} is there twice")
        return self


class Register:
    """The robots of one server directory. Reading is cheap: the file is parsed when it changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._robots: tuple[Robot, ...] = ()
        self._by_key: dict[str, Robot] = {}
        self._was_readable = False
        self._complaint = ""

    def robots(self) -> tuple[Robot, ...]:
        """Return the admitted robots by name; raises SettingsError if the file is damaged."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._robots, self._by_key = None, (), {}
            self._was_readable = True
            return ()
        except OSError as error:
            raise self._unreadable(error) from None
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp != self._stamp:
            try:
                robots = _File.model_validate_json(self._path.read_bytes()).robots
            except OSError as error:
                raise self._unreadable(error) from None
            except ValidationError as error:
                # In place of a public key there may be a private one: no value is shown.
                keys, words = explain(error, _File, show=False)
                where = ".".join(keys) or "the file"
                raise SettingsError(
                    f"{self._path}: {where}: {words}; correct it or restore it"
                ) from None
            self._by_key = {robot.key: robot for robot in robots}
            self._robots, self._stamp = robots, stamp
        self._was_readable = True
        return self._robots

    def last_readable(self) -> tuple[Robot, ...]:
        """Return the robots; while the file is damaged as they were: a typing error ends no run.

        Raises SettingsError if it was never readable.
        """
        try:
            robots = self.robots()
        except SettingsError as error:
            if not self._was_readable:
                raise
            if str(error) != self._complaint:
                log.error("robots stay as they were until it is corrected: %s", error)
            self._complaint = str(error)
            return self._robots
        self._complaint = ""
        return robots

    def by_key(self, line: str) -> Robot | None:
        """Return the robot that owns a public line."""
        self.robots()
        return self._by_key.get(line)

    def by_name(self, name: str) -> Robot | None:
        """Return the robot of that name."""
        return next((robot for robot in self.robots() if robot.name == name), None)

    def add(
        self, name: str, site: str, key: str, *, pending: bool = False, labels: Iterable[str] = ()
    ) -> Robot:
        """Admit a robot; raises SettingsError if its name or key is taken or malformed."""
        robot = new_robot(name, site, key, pending=pending, labels=labels)
        self.add_all([robot])
        return robot

    def add_all(self, new: Sequence[Robot]) -> None:
        """Admit all of them or, with SettingsError, none: a name or a key is taken."""
        with self._changing():
            robots = list(self.robots())
            for robot in new:
                for other in robots:
                    if other.name == robot.name:
                        raise SettingsError(
                            f"robot {robot.name} is in the register already; choose another"
                        )
                    if other.key == robot.key:
                        raise SettingsError(
                            f"this key belongs to robot {other.name} already ({other.state})"
                        )
                robots.append(robot)
            self._write(tuple(robots))

    def approve(self, name: str) -> Robot:
        """Let a robot take part from now on; raises SettingsError if it is unknown or revoked."""
        now = utc_now().isoformat()
        return self._change(name, state="approved", reason="", approved_at=now)

    def suspend(self, name: str, reason: str) -> Robot:
        """Leave a robot out of training until it is approved; raises as `approve` does."""
        return self._change(name, state="suspended", reason=reason)

    def revoke(self, name: str, reason: str) -> Robot:
        """Refuse a robot's key for good; raises SettingsError if it is unknown or revoked."""
        return self._change(name, state="revoked", reason=reason)

    def label(self, name: str, add: Iterable[str], remove: Iterable[str]) -> Robot:
        """Change a robot's labels; raises SettingsError if it is unknown or a label malformed."""
        with self._changing():
            robot = self.require(name)
            labels = tuple(sorted({*robot.labels, *add} - set(remove)))
            return self._replace(robot, labels=labels)

    def move(self, name: str, site: str) -> Robot:
        """Change a robot's site; raises SettingsError if it is unknown or the site malformed."""
        with self._changing():
            return self._replace(self.require(name), site=site)

    def relay(self, name: str, robots: int) -> Robot:
        """Let it answer for so many robots; raises SettingsError if it is unknown, or no number."""
        with self._changing():
            return self._replace(self.require(name), speaks_for=robots)

    def forget(self, name: str) -> Robot:
        """Take a robot out; its key is unknown then. Raises SettingsError if there is none."""
        with self._changing():
            robot = self.require(name)
            self._write(tuple(other for other in self.robots() if other.name != name))
        return robot

    def _change(self, name: str, **fields: str) -> Robot:
        with self._changing():
            robot = self.require(name)
            if robot.state == "revoked":
                raise SettingsError(
                    f"robot {name} is revoked for good; `cloud-server robots forget DIR {name}`, "
                    "then add it with a new key"
                )
            return self._replace(robot, **fields)

    def _replace(self, robot: Robot, **fields: object) -> Robot:
        changed = _robot(**{**robot.model_dump(), **fields})
        others = (other for other in self.robots() if other.name != robot.name)
        self._write((*others, changed))
        return changed

    def require(self, name: str) -> Robot:
        """Return a robot; raises SettingsError if there is none of that name."""
        robot = self.by_name(name)
        if robot is None:
            raise SettingsError(
                f"robot {name!r} is not in the register; `cloud-server robots list DIR` shows who "
                "is"
            )
        return robot

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let one command at a time read, change, write."""
        with self._path.with_name(f".{self._path.name}.lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _unreadable(self, error: OSError) -> SettingsError:
        return SettingsError(
            f"{self._path}: cannot be read ({error.strerror}); correct it or restore it"
        )

    def _write(self, robots: tuple[Robot, ...]) -> None:
        ordered = tuple(sorted(robots, key=lambda robot: robot.name))
        write_durably(self._path, _File(robots=ordered).model_dump_json(indent=1) + "\n")


def relays_of(register: Register) -> list[str]:
    """Return the names of those that may answer for several robots."""
    return [robot.name for robot in register.robots() if robot.speaks_for > 1]
