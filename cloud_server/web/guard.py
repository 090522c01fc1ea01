"""What can be reached without the admin credential: robots' own paths, nothing else."""

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

# Flower checks the robot's key on every fleet path itself; our robot paths check their own proof.
OPEN = ("/v1/fleet/", "/fleetlearn/v1/robot/")

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
        if scope["type"] == "lifespan" or self._allowed(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            body = json.dumps({"detail": "this path needs the admin credential"}).encode()
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:  # a websocket: there are none here
            await send({"type": "websocket.close", "code": 1008})

    def _allowed(self, scope: Scope) -> bool:
        if scope["type"] == "http" and scope["path"].startswith(OPEN) and ".." not in scope["path"]:
            return True
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)
