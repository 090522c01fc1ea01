"""Our own routes in front of Flower's app; those of robots that wait are held, or whole messages.

Plain ASGI middlewares directly inside the guard. Flower wraps its app in eight middlewares, for its
own paths, that make several tasks of every request, each: a robot's first requests would cost the
server twice the processor time, and a held one ten tasks.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from cloud_server.flower.whole_messages import WholeMessages
from cloud_server.robots.register import Robot
from cloud_server.web.api import Authenticator
from cloud_server.web.news import News
from cloud_server.web.transfers import Message, Receive, Send
from fleet_model.errors import RefusedError, SettingsError, UpdateError
from fleet_model.protocol.report import STANDING_HEADER, unpack_report
from fleet_model.protocol.routes import MESSAGE, NEWS, REPLY, ROBOT
from fleet_model.protocol.trial import MAX_INT
from fleet_model.protocol.version import MAX_PROTOCOL
from fleet_model.protocol.whole import MAX_WHOLE_BYTES, MOST_PARAMETER, MOST_WHOLE_BYTES

OURS = ("/fleetlearn/", "/metrics", "/console")  # how the paths begin
JSON, BYTES = "application/json", "application/octet-stream"
# Long questions that robots read at a time, 2 MB each; other robots get theirs in pieces.
MOST_LONG = 16


class OwnRoutes:
    """A plain ASGI middleware: what belongs to our own routes goes there, all else to Flower's."""

    def __init__(self, app: Any, own: Any) -> None:
        self._app, self._own = app, own

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass it on."""
        ours = scope["type"] == "http" and scope["path"].startswith(OURS)
        await (self._own if ours else self._app)(scope, receive, send)


def add_own_routes(flower: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Add routes to Flower's app, which begins and ends with them and lists them, and answer them.

    So the page of all routes (/docs, for the operator) and the walk over it miss none.
    """
    own = FastAPI(openapi_url=None)
    for router in routers:
        flower.include_router(router)
        own.include_router(router)
    flower.add_middleware(OwnRoutes, own=own)


class _Asked(BaseModel):
    """The query of a request for news."""

    model_config = ConfigDict(extra="ignore")

    tag: Annotated[str, Field(max_length=32)] = ""
    active: Annotated[int, Field(ge=0, le=MAX_INT)] | None = None
    protocol: Annotated[int, Field(ge=1, le=MAX_PROTOCOL)] | None = None
    report: str | None = None
    agent: Annotated[str, Field(pattern="^[0-9a-f]{1,32}$")] = ""


class Exchange:
    """Answers these routes; everything else goes on to Flower's app."""

    def __init__(
        self, app: Any, authenticator: Authenticator, news: News, whole: WholeMessages
    ) -> None:
        self._app, self._authenticator = app, authenticator
        self._news, self._whole = news, whole
        self._long = 0  # long questions that robots are reading
        self._routes: Mapping[tuple[str, str], Callable[..., Any]] = {
            ("GET", ROBOT + NEWS): self._wait,
            ("POST", ROBOT + MESSAGE): self._hand_out,
            ("POST", ROBOT + REPLY): self._take,
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer what is ours."""
        answer = self._routes.get((scope.get("method", ""), scope.get("path", "")))
        if scope["type"] != "http" or answer is None or not self._authenticator.hold_s:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            robot = await asyncio.to_thread(self._arrived, request)
            status, kind, content = await answer(robot, request)
        except HTTPException as refusal:
            status, kind, content = refusal.status_code, JSON, _json(detail=refusal.detail)
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(content))]
        if (standing := getattr(request.state, "standing", None)) is not None:
            headers.append((STANDING_HEADER.encode(), standing.encode()))
        long = len(content) > MAX_WHOLE_BYTES
        self._long += long
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content})
        finally:
            self._long -= long

    def _arrived(self, request: Request) -> Robot:
        """Return who asks, after taking what it tells; in one thread, not one for each."""
        robot = self._authenticator.robot(request)
        if request.url.path == ROBOT + NEWS:
            self._look(robot, request)
        return robot

    def _look(self, robot: Robot, request: Request) -> None:
        try:
            asked = _Asked.model_validate(dict(parse_qsl(request.url.query)))
            told = None if asked.report is None else unpack_report(asked.report)
        except (ValidationError, ValueError, UpdateError) as error:
            words = str(error) if isinstance(error, UpdateError) else "not a request for news"
            raise HTTPException(400, words) from None
        seen = self._authenticator.seen
        channel = before.channel if (before := seen.of(robot.name)) else ""  # as of its last look
        seen.looked(robot.name, asked.active, told, asked.protocol, asked.agent, channel)
        request.state.tag = asked.tag

    async def _wait(self, robot: Robot, request: Request) -> tuple[int, str, bytes]:
        answer = await self._news.wait(
            robot, request.state.tag, self._authenticator.hold_s, partial(_gone, request)
        )
        await asyncio.to_thread(self._see_again, robot, request)
        content = _json(message=answer.message, tag=answer.tag, alive=answer.alive)
        return 200, JSON, content

    def _see_again(self, robot: Robot, request: Request) -> None:
        """Tell a robot its standing as it is at the end of its request."""
        try:
            now = self._authenticator.registered(robot.key)
        except SettingsError:  # damaged since: as it was
            return
        except RefusedError as error:
            self._authenticator.log_refusal(str(error))
            raise HTTPException(403, str(error)) from None
        request.state.standing = self._authenticator.standing(now)
        self._authenticator.seen.see(now.name)

    async def _hand_out(self, robot: Robot, request: Request) -> tuple[int, str, bytes]:
        node_id = await self._node_of(robot)
        body = await asyncio.to_thread(self._whole.hand_out, node_id, self._most_bytes(request))
        self._news.handed_out(node_id)
        if body is None:
            raise HTTPException(404, "no question that can be handed out whole")
        return 200, BYTES, body

    def _most_bytes(self, request: Request) -> int:
        """Return how long a whole question may be: long ones stay in memory while they are read."""
        asked = request.query_params.get(MOST_PARAMETER, "")
        if self._long >= MOST_LONG or not asked.isascii() or not asked.isdigit():
            return MAX_WHOLE_BYTES
        return min(int(asked[:9]), MOST_WHOLE_BYTES)

    async def _take(self, robot: Robot, request: Request) -> tuple[int, str, bytes]:
        node_id = await self._node_of(robot)
        try:
            await asyncio.to_thread(self._whole.take, node_id, await request.body())
        except RefusedError as error:
            raise HTTPException(403, str(error)) from None
        except UpdateError as error:
            raise HTTPException(400, str(error)) from None
        return 200, JSON, _json(taken=True)

    async def _node_of(self, robot: Robot) -> int:
        await self._news.refresh(robot)
        node_id = self._news.node_of(robot)
        if node_id is None:
            raise HTTPException(403, f"robot {robot.name} is {robot.state}")
        return node_id


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(**values: Any) -> bytes:
    return json.dumps(values).encode()
