"""The page without a fleet: on this machine alone, for whoever has the printed address.

The token is in the address. The first answer puts it into a cookie that scripts do not see and that
no other site's page sends along; the page then takes it out of the address bar.
"""

import asyncio
import hmac
import secrets
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cloud_server.console.access import PROTECTION
from cloud_server.console.compare.contenders import Contender
from cloud_server.console.compare.lineup import Lineup
from cloud_server.console.compare.routes import ROOT, House, add_lineups
from cloud_server.console.pages import Pages
from fleet_model.errors import SettingsError

LOOPBACK, KEY = "127.0.0.1", "models"
GRACE_S = 1
_OWN_NAMES = ("localhost", "127.0.0.1")
Scope = dict[str, Any]


class Door:
    """Lets in who has the token, from this machine's own names; a plain ASGI middleware."""

    def __init__(self, app: Any, token: str, cookie: str) -> None:
        self._app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Pass on what is allowed, and protect every answer."""
        if scope["type"] != "http":
            return
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        is_new = self._is_token(parse_qs(scope["query_string"].decode("latin-1")).get("token"))
        more = [(name.encode(), value.encode()) for name, value in PROTECTION.items()]
        if is_new:
            cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            more.append((b"set-cookie", cookie.encode()))

        async def protected(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        refusal = self._refusal(headers, is_new=is_new)
        app: Any = JSONResponse({"detail": refusal}, 403) if refusal else self._app
        await app(scope, receive, protected)

    def _refusal(self, headers: Mapping[bytes, bytes], *, is_new: bool) -> str:
        host = headers.get(b"host", b"").decode("latin-1")
        if host.partition(":")[0].lower() not in _OWN_NAMES:
            return "only requests to localhost are answered"
        if not is_new and not self._is_token([self._given(headers)]):
            return "open the address that `cloud-server compare` has printed, with its token"
        return ""

    def _given(self, headers: Mapping[bytes, bytes]) -> str:
        for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self._cookie:
                return value
        return ""

    def _is_token(self, given: Sequence[str] | None) -> bool:
        text = given[0] if given else ""
        return hmac.compare_digest(text.encode(), self._token.encode())


def serve_alone(
    contenders: Sequence[Contender],
    data_sets: Mapping[str, Path],
    port: int,
    ready: Callable[[str, Lineup], object],
) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Args:
        contenders: the models.
        data_sets: that may be asked about as a whole, by name.
        port: 0: any that is free.
        ready: is told the address, with its token, once it answers.

    Raises:
        FleetError: a model does not open, or the port is taken.
    """
    listener = _listener(port)
    try:
        lineup = Lineup(contenders)
        try:
            asyncio.run(_serve(lineup, data_sets, listener, ready))
        finally:
            lineup.close()
    finally:
        listener.close()


def alone_app(lineup: Lineup, data_sets: Mapping[str, Path], token: str) -> Door:
    """Return the page as an ASGI application."""
    pages = Pages("compare", "")
    form_token = secrets.token_urlsafe(32)
    house = House(
        pages=pages,
        lineup={KEY: lineup}.get,
        token=lambda request: form_token,
        session=lambda request: None,
        scheme="http",
        data_sets=lambda: data_sets,
        no_data="Name one or several with --data FOLDER.",
    )
    app, router = FastAPI(openapi_url=None), APIRouter()
    add_lineups(router, house)

    @router.get("/")
    def begin() -> Response:
        return Response(status_code=303, headers={"location": f"{ROOT}/{KEY}"})

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        return pages.static(name)

    @app.exception_handler(HTTPException)
    def problem(request: Request, error: HTTPException) -> Response:
        return pages.problem("There is no such page", str(error.detail), error.status_code)

    app.include_router(router)
    # A browser has one jar for all ports of a host: two pages must not share a name.
    return Door(app, token, f"compare-{secrets.token_hex(4)}")


def _listener(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {LOOPBACK}:{port} ({error.strerror}); choose another --port"
        ) from None
    return listener


async def _serve(
    lineup: Lineup,
    data_sets: Mapping[str, Path],
    listener: socket.socket,
    ready: Callable[[str, Lineup], object],
) -> None:
    import uvicorn

    token = secrets.token_urlsafe(32)
    config = uvicorn.Config(
        alone_app(lineup, data_sets, token),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = uvicorn.Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn raises the signal again once it has shut down: here that is a clean end
        signal.signal(number, lambda *_: None)
    listener.listen()
    ready(f"http://localhost:{listener.getsockname()[1]}{ROOT}/{KEY}?token={token}", lineup)
    await server.serve([listener])
