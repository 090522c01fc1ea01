"""Who may ask over HTTP: the admin token, and the names of this server in Host and Origin."""

import hmac
import json
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from cloud_server.cli.admin_client import EVERYWHERE
from cloud_server.state.settings import LimitSettings, NetworkSettings
from cloud_server.web.buckets import Buckets, address_key

PATH = "/mcp"
BURST_S = 20.0  # of refusals, as the server's own port has it
HERE = ("localhost", "127.0.0.1", "::1")
INVALID_REQUEST = -32600  # of JSON-RPC
TOO_LONG = 413  # the SDK's answer
Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def names_of(network: NetworkSettings, host: str) -> frozenset[str]:
    """Return the names by which this server may be asked; `host` is what it listens on."""
    own = () if host in EVERYWHERE else (host,)
    return frozenset(name.lower().rstrip(".") for name in (*HERE, *network.names, *own))


class Door:
    """Refuse every request without the token, or for another name: a plain ASGI middleware.

    A page of the internet can let a browser ask any address by a name of its own (DNS rebinding);
    Host or Origin then hold that name. The SDK checks names as well, but takes upper case for
    another name, and says neither what is allowed nor where to change it.

    A client of the SDK shows the message of a JSON-RPC error; of any other body only that the
    server has answered with an error.
    """

    def __init__(
        self,
        app: Any,
        token: str,
        names: frozenset[str],
        limits: LimitSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._names, self._clock = app, names, clock
        self._expected = f"Bearer {token}".encode()
        self._refusals = Buckets(limits.refusals_per_s, BURST_S * limits.refusals_per_s)

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Pass on what is allowed."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _closing(send))
        else:
            await _refuse(send, *refusal)

    def _refusal(self, scope: Scope) -> tuple[int, str, float] | None:
        """Return status, words and seconds to wait; None if it may pass."""
        headers = dict(scope["headers"])
        if twice := _twice(scope["headers"]):
            return 400, f"the header {twice} is there twice", 0.0
        good = hmac.compare_digest(headers.get(b"authorization", b""), self._expected)
        if not good:
            address, now = address_key((scope.get("client") or ("", 0))[0]), self._clock()
            if wait_s := self._refusals.take(address, now):
                return 429, "too many refused requests from this address", wait_s
            what = "the token is another one" if b"authorization" in headers else "no token"
            return (
                401,
                f"{what}: send `Authorization: Bearer TOKEN`, with what is in secrets/admin.token "
                "of the server directory",
                0.0,
            )
        return self._wrong_name(headers)

    def _wrong_name(self, headers: Mapping[bytes, bytes]) -> tuple[int, str, float] | None:
        host = _host(f"//{headers.get(b'host', b'').decode('latin-1')}")
        if host not in self._names:
            return 421, self._unknown("Host", host), 0.0
        origin = headers.get(b"origin")
        if origin is not None:
            text = origin.decode("latin-1")
            if not text.startswith("https://") or _host(text) not in self._names:
                return 403, self._unknown("Origin", text), 0.0
        return None

    def _unknown(self, header: str, got: str) -> str:
        return (
            f"{header} {got[:80]!r} is no name of this server, which has: "
            f"{', '.join(sorted(self._names))}; add it to network.names in server.toml, then "
            "`cloud-server renew-certificate DIR`"
        )


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")  # in lower case
    except ValueError:
        return ""


def _twice(headers: Iterable[tuple[bytes, bytes]]) -> str:
    counts = Counter(name for name, _ in headers)
    deciding = (b"authorization", b"host", b"origin")
    return next((name.decode() for name in deciding if counts[name] > 1), "")


def _closing(send: Send) -> Send:
    """Return a `send` that says where the connection ends: of too long a body a part is unread."""

    async def closing(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] == TOO_LONG:
            headers = [*message.get("headers", ()), (b"connection", b"close")]
            message = {**message, "headers": headers}
        await send(message)

    return closing


async def _refuse(send: Send, status: int, words: str, wait_s: float) -> None:
    error = {"code": INVALID_REQUEST, "message": words}
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if wait_s:
        headers.append((b"retry-after", b"%d" % math.ceil(wait_s)))
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
