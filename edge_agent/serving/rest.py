"""The protocol over HTTP: paths and codes, and bodies of bounded size."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pydantic_core

from edge_agent.serving.connection import ABORT, CONNECTION
from edge_agent.serving.http import names_this_machine
from edge_agent.serving.inference import Bounds, Inference
from edge_agent.serving.request import RequestError
from edge_agent.serving.rest_body import JSON_BYTES, Body, json_body, read_request, write_answer

STATUS = {"invalid": 400, "unknown": 404, "full": 503, "not ready": 503,
          "failed": 500}  # fmt: skip
HEALTH = "/v2/health/"
RETRY = (b"retry-after", b"1")
CLOSE = (b"connection", b"close")  # the rest of a body may follow
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class RefusalError(Exception):
    """An answer without a model: what HTTP itself has a code for."""

    def __init__(self, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


class RestApp:
    """An ASGI application."""

    def __init__(self, inference: Inference, bounds: Bounds, *, any_host: bool = False) -> None:
        """Make it; `any_host`: also answer requests that name another host (in a pod)."""
        self._inference, self._any_host = inference, any_host
        self._max_body, self._slow_s = bounds.max_body, bounds.slow_s
        self._max_arriving = bounds.max_body * bounds.bodies
        self._arriving = 0  # bytes of requests that are not whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            status, body = await self._answered(scope, receive)
            more: Sequence[tuple[bytes, bytes]] = ()
        except RequestError as error:
            status, body = STATUS[error.kind], _error(str(error))
            more = (RETRY,) if status == 503 else ()
        except RefusalError as refused:
            status, body, more = refused.status, _error(str(refused)), refused.headers
        except ConnectionError:
            return  # the client has gone
        length = (b"content-length", str(len(body.content)).encode())
        leaving = asyncio.get_running_loop().call_later(self._slow_s, scope[ABORT])
        headers = [*body.headers, length, *more]
        content = b"" if scope["method"] == "HEAD" else body.content
        ends = CLOSE in more
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content, "more_body": ends})
            if ends:
                await self._pass_over(receive)
                await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()

    async def _answered(self, scope: Scope, receive: Receive) -> tuple[int, Body]:
        headers = dict(scope["headers"])
        if not self._any_host:
            _require_local(scope, headers)
        path = scope["path"].rstrip("/") or "/"
        parts = path.split("/")[1:]
        if parts[:2] == ["v2", "models"] and len(parts) > 2:
            name, version, what = _model_path(parts[2:])
            if what == "infer":
                _require_method(scope, "POST")
                return 200, await self._infer(name, version, headers, scope, receive)
            _require_method(scope, "GET", "HEAD")
            return self._of_model(name, version, what)
        _require_method(scope, "GET", "HEAD")
        return self._of_server(path)

    def _of_server(self, path: str) -> tuple[int, Body]:
        inference = self._inference
        if path == "/v2":
            return 200, _json(inference.server_metadata())
        if path == f"{HEALTH}live":
            return 200, _json({"live": True})
        if path == f"{HEALTH}ready":
            ready = inference.is_ready()
            return (200 if ready else 503), _json({"ready": ready})
        if path == "/v2/models":
            served = inference.current
            return 200, _json({"models": list(served.models) if served else []})
        if path == "/metrics":
            kind = (b"content-type", b"text/plain; version=0.0.4")
            return 200, Body([kind], inference.metrics().encode())
        raise RefusalError(404, "there is no such path; /v2/models lists what is served")

    def _of_model(self, name: str, version: str, what: str) -> tuple[int, Body]:
        if what == "ready":
            self._inference.served().model(name, version)
            ready = self._inference.is_ready()
            return (200 if ready else 503), _json({"name": name, "ready": ready})
        if what:
            raise RefusalError(404, "there is no such path; of a model: /ready and /infer")
        return 200, _json(self._inference.served().metadata(name, version))

    async def _infer(
        self, name: str, version: str, headers: dict[bytes, bytes], scope: Scope, receive: Receive
    ) -> Body:
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise RefusalError(415, "send the body uncompressed: it stays on this machine", CLOSE)
        content = await self._whole(headers, receive)

        def job() -> Body:
            request = read_request(content, headers.get(JSON_BYTES))
            return write_answer(self._inference.infer(name, version, request), request)

        return await self._inference.run("rest", scope[CONNECTION], len(content), job)

    async def _whole(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > self._max_body:
            raise self._too_large(CLOSE)
        pieces, size = [], 0
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ConnectionError
                piece = message.get("body", b"")
                pieces.append(piece)
                size += len(piece)
                self._arriving += len(piece)
                whole = not message.get("more_body", False)
                if size > self._max_body:
                    raise self._too_large() if whole else self._too_large(CLOSE)
                if whole:
                    return b"".join(pieces) if len(pieces) > 1 else piece
                if self._arriving > self._max_arriving:
                    self._inference.counts["rest", "full"] += 1
                    words = "too many large requests arrive; ask again later"
                    raise RefusalError(503, words, RETRY, CLOSE)
        finally:
            self._arriving -= size

    async def _pass_over(self, receive: Receive) -> None:
        """Let a client send what it has begun: who is cut while it sends may not see the answer."""
        left, more = self._max_arriving, True
        while more and left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            more = message.get("more_body", False)

    def _too_large(self, *headers: tuple[bytes, bytes]) -> RefusalError:
        self._inference.counts["rest", "too large"] += 1
        words = f"the body is longer than serve.max_body_mb = {self._max_body / 1e6:g}"
        return RefusalError(413, words, *headers)


def _model_path(parts: list[str]) -> tuple[str, str, str]:
    """Return name, version and what is asked: "", "ready", "infer" or what there is not."""
    name, *rest = parts
    version = ""
    if len(rest) >= 2 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
    return name, version, "/".join(rest)


def _require_method(scope: Scope, *allowed: str) -> None:
    if scope["method"] not in allowed:
        words = " or ".join(allowed)
        raise RefusalError(405, f"expected {words}", (b"allow", ", ".join(allowed).encode()), CLOSE)


def _require_local(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """Refuse what a web page of a stranger, shown on this machine, sends by a name of its own."""
    if not scope.get("client"):
        return  # a unix socket: no browser
    if not names_this_machine(headers):
        words = "only requests to localhost are answered: check the Host header"
        raise RefusalError(403, words, CLOSE)


def _json(value: Any) -> Body:
    return json_body(pydantic_core.to_json(value))


def _error(message: str) -> Body:
    return _json({"error": message})
