"""The page and what it asks for, over HTTP."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from edge_agent.labeling.access import PROTECTION, Access, RefusedRequestError
from edge_agent.labeling.desk import AHEAD, Desk, RequestError
from fleet_model.errors import FleetError, StorageError

STATIC = Path(__file__).parent / "static"
PAGE = "label.html"
KINDS = {".html": b"text/html; charset=utf-8", ".css": b"text/css; charset=utf-8",
         ".js": b"text/javascript; charset=utf-8", ".svg": b"image/svg+xml"}  # fmt: skip
MAX_BODY = 256 << 10  # bytes: 500 boxes have 60 kB
log = logging.getLogger(__name__)
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Reply(NamedTuple):
    """What is answered."""

    status: int
    kind: bytes
    content: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class LabelApp:
    """An ASGI application."""

    def __init__(self, desk: Desk, access: Access) -> None:
        """Read the page's files: nothing else is ever served from the disk."""
        self._desk, self._access = desk, access
        self._files = {
            f"/{file.name}": Reply(200, KINDS[file.suffix], file.read_bytes())
            for file in STATIC.iterdir()
            if file.suffix in KINDS
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            reply = await self._reply(scope, receive)
        except RefusedRequestError as refused:
            reply = _error(403, str(refused))
        except RequestError as error:
            reply = _error(400, str(error))
        except FleetError as error:
            reply = _error(507 if isinstance(error, StorageError) else 410, str(error))
        except ConnectionError:
            return  # the client has gone
        except Exception:
            log.exception("a request has failed")
            reply = _error(500, "something has failed; the terminal says what")
        length = (b"content-length", str(len(reply.content)).encode())
        headers = [(b"content-type", reply.kind), length, *PROTECTION, *reply.headers]
        content = b"" if scope["method"] == "HEAD" else reply.content
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        method, path = scope["method"], scope["path"]
        is_new = self._access.require(method, headers, scope["query_string"])
        if ".." in path or "\\" in path or "\0" in path:
            raise RefusedRequestError("the path leads elsewhere")
        if method in ("GET", "HEAD"):
            query = parse_qs(scope["query_string"].decode("latin-1"))
            return await self._get("/" + PAGE if path == "/" else path, query, is_new=is_new)
        if method != "POST":
            return _error(405, "expected GET or POST")
        if headers.get(b"content-type", b"").partition(b";")[0] != b"application/json":
            return _error(415, "expected application/json")
        values = _parsed(await _body(receive))
        if path == "/answer":
            return _json(await asyncio.to_thread(self._desk.answer, values))
        if path == "/undo":
            return _json(await asyncio.to_thread(self._desk.undo))
        return _error(404, "there is no such path")

    async def _get(self, path: str, query: Mapping[str, list[str]], *, is_new: bool) -> Reply:
        if path in self._files:
            found = self._files[path]
            return found._replace(headers=(self._access.set_cookie,)) if is_new else found
        if path == "/state":
            return _json(await asyncio.to_thread(self._desk.state))
        if path == "/next":
            have = query.get("have", [""])[0].split(",")
            frames = await asyncio.to_thread(self._desk.upcoming, AHEAD // 2, have)
            return _json({"frames": frames})
        if path.startswith("/frame/"):
            frame_id = path.removeprefix("/frame/").removesuffix(".jpg")
            picture = await asyncio.to_thread(self._desk.picture, frame_id)
            return Reply(200, b"image/jpeg", picture)
        return _error(404, "there is no such path")


async def _body(receive: Receive) -> bytes:
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > MAX_BODY:
            raise RequestError(f"an answer has at most {MAX_BODY} bytes")
        if not message.get("more_body", False):
            return b"".join(pieces)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content or b"null")
    except (ValueError, RecursionError):
        raise RequestError("expected JSON") from None


def _json(value: Any) -> Reply:
    return Reply(200, b"application/json", json.dumps(value).encode())


def _error(status: int, message: str) -> Reply:
    return _json({"error": message})._replace(status=status)
