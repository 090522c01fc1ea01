"""What can be reached without the admin credential: robots' own paths, so much and so often."""

import hmac
import json
import math
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cloud_server.state.settings import LimitSettings
from cloud_server.web.at_once import AtOnce, TooManyError
from cloud_server.web.buckets import Buckets, address_key
from cloud_server.web.fleet_keys import KEY, FleetKeys
from cloud_server.web.protocol import CUT
from cloud_server.web.transfers import (
    LARGE_BYTES,
    BodySpool,
    Message,
    Receive,
    Send,
    SlowPeerError,
    Turns,
    patient,
    receive_whole,
    replay,
)
from fleet_model.errors import RefusedError
from fleet_model.protocol.proof import KEY_HEADER
from fleet_model.protocol.routes import HELLO, NEWS, REPLY, ROBOT
from fleet_model.protocol.whole import MAX_WHOLE_REPLY_BYTES, MOST_WHOLE_BYTES

# Flower's fleet API as robots use it; robots are registered by the operator, never by themselves.
FLEET = {
    f"/v1/fleet/{name}"
    for name in (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages",
        "push-messages", "get-run", "get-fab", "push-object", "pull-object",
        "confirm-message-received",
    )
}  # fmt: skip
TRANSFERS = {"/v1/fleet/push-object", "/v1/fleet/pull-object"}
# Our own routes check the robot's proof themselves, and say what is wrong with it.
OWN = re.compile(re.escape(ROBOT) + r"(/[A-Za-z0-9][A-Za-z0-9_.-]*)+")
# Our own routes take no body, but for one.
ROBOT_BODY_BYTES = {ROBOT + REPLY: MOST_WHOLE_BYTES}
# How the names of headers begin that say who asks, for what, and how long the body is.
DECIDING = (
    b"authorization", b"content-", b"cookie", b"flwr-", b"host", b"origin", b"transfer-encoding",
    b"x-robot-",
)  # fmt: skip
FIRST = ROBOT + HELLO  # of a session
HELD = ROBOT + NEWS  # it would have its turn for as long as it waits
TOO_LONG = 413
REFUSALS = {
    400,
    401,
    403,
    405,
    TOO_LONG,
    415,
}  # answers that a robot with a good proof does not get
# So many seconds' worth of refusals at once: a site whose robots are not yet admitted.
BURST_S = 60.0
MAX_TRUSTED = 16384  # keys with a good proof, the latest: about 8 MB
MAX_KEY_BYTES = 400

MAX_FORM_BYTES = 16 << 10  # of a page's form
# What a browser can name of the console, spelled in one way.
PAGE = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9_.-]*)+")
HEALTH = "/healthz"  # for load balancers: that this server answers, and nothing else
Scope = dict[str, Any]


class Visitors(Protocol):
    """Browsers that a person has let in: they reach pages, and nothing else."""

    def visitor(self, path: str, headers: Mapping[bytes, bytes]) -> str | None:
        """Return who visits a page: "" is a stranger. None: there is no such page for anybody."""
        ...

    def most_bytes(self, path: str) -> int:
        """Return how long the body may be that somebody who is let in sends to a page."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the guard needs to know of the server around it."""

    limits: LimitSettings
    keys: FleetKeys
    spool: Path  # a directory on disk, not in memory, for bodies of megabytes
    busy: Callable[[], bool] = lambda: False  # transfers wait while it is true
    clock: Callable[[], float] = time.monotonic
    at_once: AtOnce = field(default_factory=AtOnce)
    visitors: Visitors | None = None


class Guard:
    """Refuse every other path without `Authorization: Bearer <admin token>`.

    Flower 1.41 leaves its control and runtime APIs open to anyone who reaches the port, even with
    TLS and robot keys; they start runs and hand out tasks. A plain ASGI middleware, outermost, so
    that nothing of Flower runs before it.

    An address that was refused too often waits, but not the robots there whose proof was good: a
    stranger behind the same router must not lock them out, nor the operator.
    """

    def __init__(self, app: Any, token: str, bounds: Bounds) -> None:
        limits = bounds.limits
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._bounds = bounds
        self._max_body = int(limits.max_body_mb * 1e6)
        self._requests, self._of_keys = (
            Buckets(limits.requests_per_s, 2 * limits.requests_per_s) for _ in range(2)
        )
        self._refusals = Buckets(limits.refusals_per_s, BURST_S * limits.refusals_per_s)
        self._trusted: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._turns = Turns(bounds.spool, bounds.busy)
        self._at_once = bounds.at_once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            visit = self._visit(scope)
            if scope["path"] == HEALTH:  # outside `_watch`: nobody earns or loses trust by it
                wait_s = self._requests.take(visit.address, self._bounds.clock())
                await _refuse(send, _Refusal(429, "too many requests", wait_s) if wait_s else ALIVE)
                return
            try:
                await self._answer(visit, scope, receive, self._watch(visit, send))
            except SlowPeerError:
                scope.get(CUT, lambda: None)()
                while (await receive())["type"] != "http.disconnect":
                    pass
        else:  # a websocket: there are none here
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, visit: "_Visit", scope: Scope, receive: Receive, send: Send) -> None:
        refusal = visit.malformed or self._refusal(visit, scope)
        if refusal is not None:
            await _refuse(send, refusal)
            return
        with BodySpool(self._bounds.spool) as body:
            await receive_whole(receive, body, self._bounds.limits.slow_s)
            if scope["path"] in TRANSFERS or body.size > LARGE_BYTES:
                await self._turns.run(self._app, scope, body, receive, send)
                return
            again = replay(await body.read(), receive)
            if visit.operator or visit.visitor or scope["path"] == HELD:
                await self._app(scope, again, send)
            else:
                await self._in_turn(scope, again, send)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app in a turn, which ends when the answer begins: its peer may read slowly."""
        try:
            async with self._at_once.turn(last=scope["path"] == FIRST) as end:

                async def answered(message: Message) -> None:
                    end()
                    await send(message)

                await self._app(scope, receive, answered)
        except TooManyError:
            await _refuse(send, BUSY)

    def _visit(self, scope: Scope) -> "_Visit":
        headers = dict(scope["headers"])
        client = scope.get("client") or ("", 0)
        return _Visit(
            address=address_key(client[0]),
            headers=headers,
            key=headers.get(KEY) or headers.get(KEY_HEADER.encode()) or b"",
            operator=hmac.compare_digest(headers.get(b"authorization", b""), self._expected),
            malformed=_malformed(scope["headers"]),
            visitor=self._visitor(scope, headers),
        )

    def _visitor(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str | None:
        visitors, path = self._bounds.visitors, scope["path"]
        exact = scope.get("raw_path", path.encode()) == path.encode() and PAGE.fullmatch(path)
        return visitors.visitor(path, headers) if visitors is not None and exact else None

    def _refusal(self, visit: "_Visit", scope: Scope) -> "_Refusal | None":
        if not visit.operator:
            wait_s, whose = self._wait_s(visit)
            if wait_s > 0:
                return _Refusal(429, f"too many requests {whose}", wait_s)
            if not _is_robots(scope) and visit.visitor is None:
                return _Refusal(401, "this path needs the admin credential")
        size = _body_bytes(visit.headers)
        longest = self._max_body
        if OWN.fullmatch(scope["path"]) and not visit.operator:
            longest = ROBOT_BODY_BYTES.get(scope["path"], 0)
        if visit.visitor is not None:
            longest = MAX_FORM_BYTES
            if visit.visitor and self._bounds.visitors:
                longest = self._bounds.visitors.most_bytes(scope["path"])
        if size is None or size > longest:
            return _Refusal(TOO_LONG, f"send at most {longest} bytes, not chunked")
        try:
            self._require_proof(visit, scope, size)
        except RefusedError as error:
            return _Refusal(401 if scope["path"] in FLEET else 403, str(error))
        return None

    def _require_proof(self, visit: "_Visit", scope: Scope, size: int) -> None:
        """Raise RefusedError where a body would be read of somebody who proves too little."""
        keys = self._bounds.keys
        if scope["path"] in FLEET:
            keys.require_known(visit.headers)
            if size > LARGE_BYTES:
                keys.require_signature(visit.headers)
        elif size > MAX_WHOLE_REPLY_BYTES and not (visit.operator or visit.visitor):
            keys.require_proof(visit.headers, scope["method"], scope["path"])

    def _wait_s(self, visit: "_Visit") -> tuple[float, str]:
        now = self._bounds.clock()
        if visit.visitor:
            return self._of_keys.take(visit.visitor, now), "of this browser"
        if (visit.address, visit.key) in self._trusted:  # a flood of its own is no neighbor's
            return self._of_keys.take(visit.key.decode("latin-1"), now), "of this robot"
        wait_s = self._requests.take(visit.address, now)
        return wait_s or self._refusals.wait_s(visit.address, now), "from this address"

    def _watch(self, visit: "_Visit", send: Send) -> Send:
        """Return a `send` that counts refusals and lets no refused peer keep its connection."""
        bounded = patient(send, self._bounds.limits.slow_s)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                if not visit.operator:
                    message = self._judge(visit, message)
                elif message["status"] == TOO_LONG:  # a part of it stays unread
                    message = _closing(message)
            await bounded(message)

        return watched

    def _judge(self, visit: "_Visit", message: Message) -> Message:
        peer = (visit.address, visit.key)
        if 0 < len(visit.key) < MAX_KEY_BYTES and message["status"] < 400:
            self._trusted[peer] = None
            self._trusted.move_to_end(peer)
            if len(self._trusted) > MAX_TRUSTED:
                self._trusted.popitem(last=False)
        if message["status"] in REFUSALS:
            self._refusals.take(visit.address, self._bounds.clock())
        elif message["status"] != 429 or peer in self._trusted:
            return message
        return _closing(message)


@dataclass(frozen=True, slots=True)
class _Visit:
    """One request, as far as its head tells."""

    address: str
    headers: Mapping[bytes, bytes]
    key: bytes  # that it claims to prove
    operator: bool
    malformed: "_Refusal | None"  # why nobody can tell what it means
    visitor: str | None  # see Visitors


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    reason: str
    wait_s: float = 0.0


ALIVE = _Refusal(200, "alive")
BUSY = _Refusal(503, "more robots begin at once than this server can answer; come again later", 5.0)


def _malformed(headers: Iterable[tuple[bytes, bytes]]) -> _Refusal | None:
    """Refuse a header that decides something and is there twice: we read one, Flower the other."""
    counts = Counter(name for name, _ in headers if name.startswith(DECIDING))
    twice = [name.decode("latin-1") for name, count in counts.items() if count > 1]
    return _Refusal(400, f"the header {twice[0][:60]} is there twice") if twice else None


def _is_robots(scope: Scope) -> bool:
    """Only the exact spelling: what a router makes of the others is nobody's business."""
    path = scope["path"]
    if scope.get("raw_path", path.encode()) != path.encode():
        return False  # percent signs
    return (path in FLEET and scope["method"] == "POST") or OWN.fullmatch(path) is not None


def _body_bytes(headers: Mapping[bytes, bytes]) -> int | None:
    """Return the length that the head announces, None if it gives none that can be trusted."""
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or not length.isdigit() or len(length) >= 20:
        return None
    return int(length)


def _closing(message: Message) -> Message:
    """Return an answer's head that says that the connection ends."""
    return {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}


async def _refuse(send: Send, refusal: _Refusal) -> None:
    body = json.dumps({"detail": refusal.reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.wait_s:
        headers.append((b"retry-after", b"%d" % math.ceil(refusal.wait_s)))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
