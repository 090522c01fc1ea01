"""The paths: OpenAI's, a plain one, and what operators look at."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse

from cloud_server.departments.answers import Answers, AskError, event
from cloud_server.departments.asking import Asking, Desk
from cloud_server.departments.bodies import ChatCompletions, Complete, Completions, read_body
from cloud_server.departments.table import Departments

BODY_BYTES = 1 << 20
HEALTH = "/healthz"
_DONE = b"data: [DONE]\n\n"
Found = TypeVar("Found")


class Gate:
    """Lets those in who have the key."""

    def __init__(self, key: str) -> None:
        """Take the key; "": everybody may ask."""
        self._key = key.encode()

    def require(self, request: Request) -> None:
        """Raise AskError for a request without the key."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self._key and not hmac.compare_digest(given.encode(), self._key):
            raise AskError(401, "the key is missing or wrong; expected `Authorization: Bearer KEY`")


def make_app(
    desk: Desk, departments: Departments, key: str, registry: CollectorRegistry
) -> FastAPI:
    """Return the routes; `key` is what clients send, "" none."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gate = Gate(key)
    asked = Counter(
        "fleetlearn_departments_requests", "Requests by department and status.",
        ("department", "status"), registry=registry,
    )  # fmt: skip

    @app.exception_handler(AskError)
    async def refused(request: Request, error: AskError) -> Response:
        asked.labels(_known(departments, request), str(error.status)).inc()
        return error.response()

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        del request
        return AskError(error.status_code, error.detail, code="unknown_url").response()

    async def begun(request: Request, kind: type[Any]) -> Any:
        gate.require(request)
        body = read_body(kind, await _content(request))
        request.state.department = getattr(body, "model", "")
        return body

    async def answered(request: Request, asking: Asking, chat: bool, body: Any) -> Response:
        answers = Answers(asking.served.department, asking.served.adapter.key, chat=chat)
        if body.stream:
            asked.labels(asking.served.department, "200").inc()
            return StreamingResponse(
                _events(asking, answers, with_usage=body.with_usage),
                media_type="text/event-stream",
            )
        texts = await _unless_gone(request, asking, asking.texts)
        asked.labels(asking.served.department, "200").inc()
        return JSONResponse(answers.whole(texts))

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body: Completions = await begun(request, Completions)
        asking = desk.begin(body.model, body.asked(), body, body.max_tokens)
        return await answered(request, asking, False, body)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        body: ChatCompletions = await begun(request, ChatCompletions)
        most = body.max_completion_tokens or body.max_tokens
        asking = desk.begin(body.model, body.asked(), body, most)
        return await answered(request, asking, True, body)

    @app.post("/departments/{name}/complete")
    async def complete(request: Request, name: str) -> Response:
        body: Complete = await begun(request, Complete)
        request.state.department = name
        asking = desk.begin(name, body.asked(), body, body.max_tokens)
        (text,) = await _unless_gone(request, asking, asking.texts)
        asked.labels(name, "200").inc()
        told: dict[str, Any] = {"department": name, "text": text.text, "ends": text.ends}
        told |= {"prompt_tokens": text.asked, "tokens": text.tokens}
        served = asking.served
        return JSONResponse({**told, "what": served.what, "adapter": served.adapter.key[:12]})

    _add_looks(app, gate, departments, registry)
    return app


def _add_looks(
    app: FastAPI, gate: Gate, departments: Departments, registry: CollectorRegistry
) -> None:
    def model(name: str) -> dict[str, Any]:
        served = departments.served[name]
        about = {"id": name, "object": "model", "created": served.since_s}
        about |= {"owned_by": "fleetlearn", "adapter": served.adapter.key[:12]}
        return {**about, "what": served.what}

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        gate.require(request)
        found = [model(name) for name in sorted(departments.served)]
        return JSONResponse({"object": "list", "data": found})

    @app.get("/v1/models/{name}")
    async def one_model(request: Request, name: str) -> Response:
        gate.require(request)
        if name not in departments.served:
            raise AskError(404, f"there is no department {name[:80]!r}", "model")
        return JSONResponse(model(name))

    @app.get("/departments")
    async def all_departments(request: Request) -> Response:
        gate.require(request)
        return JSONResponse({"departments": departments.as_json()})

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        gate.require(request)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    @app.get(HEALTH)
    async def health() -> Response:
        return Response("ok\n", media_type="text/plain")


async def _events(asking: Asking, answers: Answers, *, with_usage: bool) -> AsyncIterator[bytes]:
    texts, begun = [], set[int]()
    try:
        async for piece in asking.pieces():
            first, ends = piece.index not in begun, ""
            begun.add(piece.index)
            if piece.ended is not None:
                ends = piece.ended.ends
                texts.append(piece.ended)
            yield answers.event(piece.index, piece.text, ends, first=first)
        if with_usage:
            yield answers.last_event(texts)
        yield _DONE
    except AskError as error:  # the head is sent: clients raise at such an event
        yield event(error.as_json())
    finally:
        asking.close()


async def _unless_gone(
    request: Request, asking: Asking, work: Callable[[], Awaitable[Found]]
) -> Found:
    """Return what work returns; it is left undone when the client goes away."""
    working = asyncio.ensure_future(work())
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise AskError(499, "the client has gone away")
    finally:
        gone.cancel()
        working.cancel()
        asking.close()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _content(request: Request) -> bytes:
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > BODY_BYTES:
            raise AskError(413, f"the body is larger than {BODY_BYTES} bytes")
    return bytes(found)


def _known(departments: Departments, request: Request) -> str:
    """Return a department's name for metrics; "" of those that strangers make up."""
    name = getattr(request.state, "department", "")
    return name if name in departments.served else ""
