"""The register of robots: who may take part, under which name, at which site.

The register is a file that the operator's commands rewrite in one step; a running server reads it
again when it changes. A robot's site is the server's word, never the robot's.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError
from fleet_model.proof import fingerprint, parse_public, public_line, utc_now

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"


def _line(text: str) -> str:
    try:
        line = public_line(parse_public(text))
    except SettingsError as error:
        raise ValueError(str(error)) from None  # pydantic then says whose key it is
    if not line.startswith("ecdsa-sha2-nistp384 "):
        raise ValueError("expected an ecdsa-sha2-nistp384 key, as `edge-agent enroll` makes")
    return line


class Robot(BaseModel):
    """One admitted robot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME)
    site: str = Field(pattern=NAME)
    key: Annotated[str, AfterValidator(_line)]  # OpenSSH public line, kept without comment
    added_at: str

    @property
    def fingerprint(self) -> str:
        """Return what `ssh-keygen -l` prints for the key."""
        return fingerprint(self.key)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    robots: tuple[Robot, ...] = ()


class Register:
    """The robots of one server directory. Reading is cheap: the file is parsed when it changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._robots: tuple[Robot, ...] = ()

    def robots(self) -> tuple[Robot, ...]:
        """Return the admitted robots by name; raises SettingsError if the file is damaged."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return ()
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp != self._stamp:
            try:
                self._robots = _File.model_validate_json(self._path.read_bytes()).robots
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"])) or "the file"
                raise SettingsError(
                    f"{self._path}: {where}: {first['msg']}; correct it or restore it"
                ) from None
            self._stamp = stamp
        return self._robots

    def by_key(self, line: str) -> Robot | None:
        """Return the robot that owns a public line."""
        return next((robot for robot in self.robots() if robot.key == line), None)

    def add(self, name: str, site: str, key: str) -> Robot:
        """Admit a robot; raises SettingsError if its name or key is taken or malformed."""
        try:
            robot = Robot(name=name, site=site, key=key, added_at=utc_now().isoformat())
        except ValidationError as error:
            first = error.errors()[0]
            raise SettingsError(f"{first['loc'][0]} {first['input']!r}: {first['msg']}") from None
        with self._changing():
            for other in self.robots():
                if other.name == name:
                    raise SettingsError(f"robot {name} is in the register already; choose another")
                if other.key == robot.key:
                    raise SettingsError(f"this key belongs to robot {other.name} already")
            self._write((*self.robots(), robot))
        return robot

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let one command at a time read, change, write."""
        with self._path.with_name(f".{self._path.name}.lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _write(self, robots: tuple[Robot, ...]) -> None:
        ordered = tuple(sorted(robots, key=lambda robot: robot.name))
        write_durably(self._path, _File(robots=ordered).model_dump_json(indent=1) + "\n")
