"""What can be reached without the admin credential: robots' own paths, nothing else."""

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

# Flower checks the robot's key on every fleet path itself; our robot paths check their own proof.
OPEN = ("/v1/fleet/", "/fleetlearn/v1/robot/")
# Flower reads a whole body before it looks at the signature. Its largest objects are 5 MB, the cut
# of flwr 1.41; our own paths take no body.
MAX_BODY_BYTES = 32 << 20

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Guard:
    """Refuse every other path without `Authorization: Bearer <admin token>`.

    Flower 1.41 leaves its control and runtime APIs open to anyone who reaches the port, even with
    TLS and robot keys; they start runs and hand out tasks. A plain ASGI middleware, outermost, so
    that nothing of Flower runs before it.
    """

    def __init__(self, app: Any, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed."""
        if scope["type"] == "lifespan" or self._is_operator(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            if not scope["path"].startswith(OPEN) or ".." in scope["path"]:
                await _refuse(send, 401, "this path needs the admin credential")
            elif not _is_short(scope):
                await _refuse(send, 413, f"send at most {MAX_BODY_BYTES} bytes, not chunked")
            else:
                await self._app(scope, receive, send)
        else:  # a websocket: there are none here
            await send({"type": "websocket.close", "code": 1008})

    def _is_operator(self, scope: Scope) -> bool:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)


def _is_short(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    short = length.isdigit() and len(length) < 20 and int(length) <= MAX_BODY_BYTES
    return short and b"transfer-encoding" not in headers


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
