"""Tokens by which new robots admit themselves: a kit for many robots, no command for each.

Off until an operator makes one. A token is 256 random bits; the file keeps its SHA-256. Whoever has
the token may admit as many keys as it has uses left, until it expires or is revoked: it is handed
out like a password, and each robot removes its copy once it is admitted.
"""

import fcntl
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import chain, count
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloud_server.robots.register import NAME, Name, Register, Robot
from fleet_model.durable import write_durably
from fleet_model.errors import RefusedError, SettingsError
from fleet_model.protocol.proof import fingerprint
from fleet_model.settings import explain

WRONG = "the token is not one of this server, or was revoked"


class Token(BaseModel):
    """What is kept of one token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str  # the part before the dot: says which one is meant, and is no secret
    sha256: str  # of the whole token
    made_at: datetime
    expires_at: datetime
    uses: Annotated[int, Field(ge=1, le=10_000)]
    site: Name
    labels: tuple[Name, ...] = ()
    pending: bool = False  # its robots wait for `robots approve`
    admitted: tuple[str, ...] = ()  # fingerprints of the keys that it has admitted

    def why_not(self, now: datetime) -> str:
        """Return why it admits nobody any more; "" while it does."""
        if now >= self.expires_at:
            return f"the token {self.id} expired at {self.expires_at:%Y-%m-%d %H:%M} UTC"
        if len(self.admitted) >= self.uses:
            times = "once" if self.uses == 1 else f"{self.uses} times"
            return f"the token {self.id} was for use {times}, and is used up"
        return ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tokens: tuple[Token, ...] = ()


class Tokens:
    """The tokens of one server directory. Every change holds a lock, also against processes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> tuple[Token, ...]:
        """Return those that were not revoked; raises SettingsError if the file is damaged."""
        try:
            return _File.model_validate_json(self._path.read_bytes()).tokens
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError):
            raise SettingsError(
                f"{self._path}: damaged; remove it, which revokes every token, and make new ones"
            ) from None

    def make(
        self,
        now: datetime,
        *,
        valid: timedelta,
        uses: int = 1,
        site: str = "default",
        labels: tuple[str, ...] = (),
        pending: bool = False,
    ) -> str:
        """Return a new token, which is kept nowhere; raises SettingsError for a wrong value."""
        name = secrets.token_hex(4)
        token = f"{name}.{secrets.token_urlsafe(32)}"
        try:
            kept = Token(
                id=name, sha256=_digest(token), made_at=now, expires_at=now + valid, uses=uses,
                site=site, labels=labels, pending=pending,
            )  # fmt: skip
        except ValidationError as error:
            keys, words = explain(error, Token)
            raise SettingsError(f"--{'.'.join(keys)}: {words}") from None
        with self._changing():
            alive = tuple(one for one in self.all() if not one.why_not(now))
            self._write((*alive, kept))
        return token

    def revoke(self, name: str) -> None:
        """Let a token admit nobody any more; raises SettingsError if there is none."""
        with self._changing():
            tokens = self.all()
            if name not in {one.id for one in tokens}:
                raise SettingsError(f"there is no token {name!r}; `robots token list` shows them")
            self._write(tuple(one for one in tokens if one.id != name))

    def admit(self, token: str, key: str, name: str, register: Register, now: datetime) -> Robot:
        """Admit a key by a token, once; a robot that asks again gets the same answer.

        Args:
            token: as the robot has sent it.
            key: public line, whose private half the robot has proven to have.
            name: that the robot asks for; with a number behind it if another one has it.
            register: where the robot is added.
            now: UTC.

        Raises:
            RefusedError: the token is wrong, expired, used up, or has admitted this key before.
            SettingsError: a file is damaged.
        """
        if not re.fullmatch(NAME, name):
            raise RefusedError(
                "the robot's name must be letters, digits, '.', '_' and '-', at most 63; enroll it "
                "again with --name"
            )
        digest, print_of_key = _digest(token), fingerprint(key)
        register.robots()  # a damaged register must cost no use
        with self._changing():
            tokens = self.all()
            # Every hash is compared, each in the same time.
            found = [one for one in tokens if hmac.compare_digest(one.sha256, digest)]
            if not found:
                raise RefusedError(WRONG)
            kept = found[0]
            if why := kept.why_not(now):
                raise RefusedError(why)
            if print_of_key in kept.admitted:  # and was forgotten: a repeated request
                raise RefusedError(f"the token {kept.id} has admitted this key before")
            # Counted first: killed in between, a use is lost, and none is won.
            used = kept.model_copy(update={"admitted": (*kept.admitted, print_of_key)})
            self._write(tuple(used if one is kept else one for one in tokens))
            return _add(register, kept, key, name)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._path.with_name(f".{self._path.name}.lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _write(self, tokens: tuple[Token, ...]) -> None:
        content = _File(tokens=tokens).model_dump_json(indent=1) + "\n"
        write_durably(self._path, content, mode=0o600)


def _add(register: Register, token: Token, key: str, name: str) -> Robot:
    taken = {robot.name for robot in register.robots()}
    free = next(one for one in _names(name) if one not in taken)
    labels = {"labels": token.labels, "pending": token.pending}
    try:
        return register.add(free, token.site, key, **labels)  # type: ignore[arg-type]
    except SettingsError as error:
        raise RefusedError(str(error)) from None


def _names(name: str) -> Iterator[str]:
    """Yield a name, and the same with a number: robots from one image have one host name."""
    return chain([name], (f"{name[:58]}-{number}" for number in count(2)))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
