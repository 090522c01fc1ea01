"""The guard alone, as a plain ASGI app; test_api.py walks the real server's routes."""

import asyncio
import json

import pytest

from cloud_server.web.guard import MAX_BODY_BYTES, Guard

pytestmark = pytest.mark.base

TOKEN = "t0ken"


def call(path, kind="http", **headers):
    """Return the status that a stranger sees and the body; 200 if the app behind was reached."""
    sent = []

    async def behind(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message):
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "headers": raw}
    asyncio.run(Guard(behind, TOKEN)(scope, None, send))
    return sent


def status(path, **headers):
    return call(path, **headers)[0]["status"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/health",
        "/v1/control/start-run",
        "/v1/runtime/get-nodes",
        "/fleetlearn/v1/admin/status",
        "/v1/fleet",
        "/v1/fleetx/",
        "//v1/fleet/pull-messages",
        "/V1/FLEET/pull-messages",
        "/v1/fleet/../control/start-run",
        "/fleetlearn/v1/robot/../admin/status",
    ],
)
def test_a_stranger_reaches_no_path_but_the_robots(path):
    assert status(path) == 401
    assert status(path, authorization=f"Bearer {TOKEN}") == 200


@pytest.mark.parametrize("path", ["/v1/fleet/pull-messages", "/fleetlearn/v1/robot/hello"])
def test_robots_reach_their_paths_which_check_their_own_proof(path):
    assert status(path) == 200


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", "Bearer t0ke", "Bearer t0ken ", "bearer t0ken", "Basic t0ken"],
)
def test_nothing_but_the_whole_token_is_the_token(given):
    assert status("/docs", authorization=given) == 401


def test_a_refusal_is_json_and_says_what_is_missing():
    start, body = call("/docs")

    assert (b"www-authenticate", b"Bearer") in start["headers"]
    assert json.loads(body["body"]) == {"detail": "this path needs the admin credential"}


def test_a_websocket_is_closed():
    (sent,) = call("/v1/fleet/x", kind="websocket")

    assert sent == {"type": "websocket.close", "code": 1008}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content_length": "0"}, 200),
        ({"content_length": str(MAX_BODY_BYTES)}, 200),
        ({"content_length": str(MAX_BODY_BYTES + 1)}, 413),
        ({"content_length": "9" * 30}, 413),
        ({"content_length": "-1"}, 413),
        ({"content_length": "many"}, 413),
        ({"transfer_encoding": "chunked"}, 413),
        ({"content_length": "5", "transfer_encoding": "chunked"}, 413),
    ],
)
def test_a_stranger_cannot_fill_the_memory(headers, expected):
    assert status("/v1/fleet/push-object", **headers) == expected


def test_the_start_and_end_of_the_server_pass():
    assert call("", kind="lifespan")
