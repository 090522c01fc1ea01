"""Who may use the console: who opens a one-time link, from one browser, for some hours.

Links and sessions are in memory alone, as hashes: a restart of the server ends them all. Nothing of
the console is reached before the operator has asked for a link; a robot's key opens none of it, and
a session opens nothing else of the server.
"""

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fastapi import HTTPException

from cloud_server.console.compare.uploads import MOST_PICTURE_BYTES
from cloud_server.web.buckets import Buckets
from cloud_server.web.guard import MAX_FORM_BYTES
from fleet_model.errors import RefusedError

PREFIX = "/console"
LOGIN = f"{PREFIX}/login"
ASKED = re.compile(re.escape(PREFIX) + r"/compare/[A-Za-z0-9]+/ask")  # where models are asked
LINK_S = 300.0
SESSION_S, IDLE_S = 8 * 3600.0, 3600.0
MAX_LINKS, MAX_SESSIONS = 8, 32  # of more the oldest ends
ATTEMPTS, EACH_S = 10, 10.0  # logins of one address: so many at once, then one in so many seconds
_TOKEN_BYTES = 32
# Nothing from elsewhere, no code or style in the markup, no frame around it.
PROTECTION: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Without a referrer a browser names no origin with a form, and forms are refused without one.
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class TooManyLoginsError(RefusedError):
    """An address has tried too often."""

    wait_s = EACH_S


@dataclass(eq=False)
class Session:
    """One browser that has logged in."""

    until_s: float  # of the clock
    used_s: float
    # What every form of its pages carries: a page elsewhere cannot know it.
    form_token: str = field(default_factory=lambda: secrets.token_urlsafe(_TOKEN_BYTES), repr=False)
    notes: list[tuple[str, str]] = field(default_factory=list)  # (good or bad, text), shown once

    def taken_notes(self) -> list[tuple[str, str]]:
        """Return what is to be told, and forget it."""
        told, self.notes = self.notes, []
        return told


class Access:
    """Links and sessions; thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Let nobody in until a link is made."""
        self._clock, self._lock = clock, threading.Lock()
        self._links: dict[str, float] = {}  # sha256 of the code -> until when, oldest first
        self._sessions: dict[str, Session] = {}  # sha256 of the cookie's value, oldest first
        self._attempts = Buckets(1 / EACH_S, ATTEMPTS)
        self.is_open = False  # whether anything of the console is answered
        # A browser has one jar for all ports of a host: two servers must not share a name.
        self.cookie = f"__Host-console-{secrets.token_hex(4)}"

    def link(self) -> str:
        """Return the path that logs one browser in, once, in the next LINK_S seconds."""
        code = secrets.token_urlsafe(_TOKEN_BYTES)
        with self._lock:
            self.is_open = True
            self._forget()
            self._links[_digest(code)] = self._clock() + LINK_S
            while len(self._links) > MAX_LINKS:
                del self._links[next(iter(self._links))]
        return f"{LOGIN}?code={code}"

    def log_in(self, code: str, address: str) -> str:
        """Use up a link; return the value of the cookie.

        Raises:
            TooManyLoginsError: this address has tried too often.
            RefusedError: the link is used, too old, or none of this server.
        """
        with self._lock:
            if self._attempts.take(address, self._clock()):
                raise TooManyLoginsError("too many logins from this address; try again soon")
            self._forget()
            if self._links.pop(_digest(code), None) is None:
                raise RefusedError(
                    "this link was used, or is older than five minutes; `cloud-server web DIR` "
                    "prints a new one"
                )
            token, now_s = secrets.token_urlsafe(_TOKEN_BYTES), self._clock()
            self._sessions[_digest(token)] = Session(until_s=now_s + SESSION_S, used_s=now_s)
            while len(self._sessions) > MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
        return token

    def session(self, headers: Mapping[bytes, bytes]) -> Session | None:
        """Return whose request this is, by its cookie; None: nobody's who is logged in."""
        token = self._token(headers)
        with self._lock:
            found = self._sessions.get(_digest(token)) if token else None
            if found is None:
                return None
            now_s = self._clock()
            if now_s >= found.until_s or now_s - found.used_s >= IDLE_S:
                del self._sessions[_digest(token)]
                return None
            found.used_s = now_s
        return found

    def end(self, headers: Mapping[bytes, bytes]) -> None:
        """Log one browser out."""
        with self._lock:
            self._sessions.pop(_digest(self._token(headers)), None)

    def end_all(self) -> int:
        """End every session and every link; return how many browsers were logged in."""
        with self._lock:
            self._forget()
            count = len(self._sessions)
            self._sessions.clear()
            self._links.clear()
            self.is_open = False
        return count

    def set_cookie(self, token: str) -> str:
        """Return the header that gives a browser its session; "" takes it away."""
        age_s = int(SESSION_S) if token else 0
        return f"{self.cookie}={token}; Path=/; Max-Age={age_s}; Secure; HttpOnly; SameSite=Strict"

    def visitor(self, path: str, headers: Mapping[bytes, bytes]) -> str | None:
        """As web.guard.Visitors has it."""
        if not self.is_open or not (path == PREFIX or path.startswith(f"{PREFIX}/")):
            return None
        return "" if self.session(headers) is None else _digest(self._token(headers))

    def most_bytes(self, path: str) -> int:
        """As web.guard.Visitors has it: forms are short, and models are shown pictures."""
        return MOST_PICTURE_BYTES if ASKED.fullmatch(path) else MAX_FORM_BYTES

    def _token(self, headers: Mapping[bytes, bytes]) -> str:
        for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self.cookie:
                return value
        return ""

    def _forget(self) -> None:
        now_s = self._clock()
        self._links = {one: until for one, until in self._links.items() if until > now_s}
        self._sessions = {
            key: one
            for key, one in self._sessions.items()
            if now_s < one.until_s and now_s - one.used_s < IDLE_S
        }


def require_own_page(headers: Mapping[str, str], scheme: str) -> None:
    """Raise HTTPException unless a page of this server has sent what is asked to be done."""
    is_own = headers.get("origin") == f"{scheme}://{headers.get('host', '')}"
    if not is_own or headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise HTTPException(403, "only a page of this server may ask for this")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
