"""The guard alone, as a plain ASGI app; test_route_walk.py walks the real server's routes."""

import asyncio
import base64
import dataclasses
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.register import Register
from cloud_server.state.settings import LimitSettings
from cloud_server.web.at_once import AtOnce
from cloud_server.web.fleet_keys import KEY, SIGNATURE, TIME, FleetKeys, header_of
from cloud_server.web.guard import BURST_S, Bounds, Guard
from cloud_server.web.transfers import LARGE_BYTES
from fleet_model.protocol.proof import KEY_HEADER, TIME_HEADER, public_line, sign, utc_now
from fleet_model.protocol.routes import REPLY, ROBOT
from fleet_model.protocol.whole import MAX_WHOLE_REPLY_BYTES, MOST_WHOLE_BYTES

TOKEN = "t0ken"
OPERATOR = {"authorization": f"Bearer {TOKEN}"}
PULL, HELLO = "/v1/fleet/pull-messages", "/fleetlearn/v1/robot/hello"
MAX_BODY_BYTES = 32_000_000
REPLY_PATH = ROBOT + REPLY


class Port:
    """A guard around an app that answers `status`; its clock stands still unless told."""

    def __init__(self, directory, **limits):
        directory.mkdir(exist_ok=True)
        self.now, self.status = 0.0, 200
        self.key = ec.generate_private_key(ec.SECP384R1())
        line = public_line(self.key.public_key())
        self.register = register = Register(directory / "robots.json")
        register.add("r1", "hall", line)
        self.known = {KEY.decode(): header_of(line).decode()}
        bounds = Bounds(
            limits=LimitSettings(**limits),
            keys=FleetKeys(register),
            spool=directory,
            clock=lambda: self.now,
        )
        self.guard = Guard(self._behind, TOKEN, bounds)

    async def _behind(self, scope, receive, send):
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    def call(self, path, method="POST", kind="http", raw=None, client="192.0.2.1", **headers):
        """Return what is sent; status 200 if the app behind was reached."""
        sent = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        pairs = [
            (name.replace("_", "-").encode(), value.encode())
            for name, values in headers.items()
            for value in ([values] if isinstance(values, str) else values)
        ]
        scope = {
            "type": kind, "path": path, "raw_path": raw or path.encode(), "method": method,
            "headers": pairs, "client": (client, 1),
        }  # fmt: skip
        asyncio.run(self.guard(scope, receive, send))
        return sent

    def answer(self, path, **more):
        return self.call(path, **more)[0]["status"]


@pytest.fixture
def port(tmp_path):
    return Port(tmp_path)


@pytest.fixture
def status(port):
    return port.answer


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
        "/fleetlearn/v1/robot/hello/",
        "/fleetlearn/v1/robot//hello",
        "/fleetlearn/v1/robot/hello;x",
        "/fleetlearn/v1/robot/",
        "/fleetlearn/v1/robot",
        "/fleetlearn/v1/robotx/hello",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/unheard-of",
        "https://x/v1/fleet/pull-messages",
    ],
)
def test_a_stranger_reaches_no_path_but_the_robots(path, status):
    assert status(path) == 401
    assert status(path, authorization=f"Bearer {TOKEN}") == 200


def test_the_same_path_in_another_spelling_is_another_path(status, port):
    assert status(HELLO, raw=b"/fleetlearn/v1/robot/%68ello") == 401
    assert status(PULL, raw=b"/v1/fl%65et/pull-messages", **port.known) == 401


def test_robots_reach_their_paths_which_check_their_own_proof(status, port):
    assert status(PULL, **port.known) == 200
    assert status(HELLO) == status(HELLO, method="GET") == 200
    assert status(PULL, method="GET", **port.known) == 401


def test_flower_is_asked_by_nobody_but_keys_of_the_register(status, port):
    other = header_of(public_line(ec.generate_private_key(ec.SECP384R1()).public_key())).decode()

    assert status(PULL) == status(PULL, **OPERATOR) == 401
    assert status(PULL, **{KEY.decode(): other}) == 401


def test_a_revoked_key_is_refused_with_the_reason_at_the_next_request(port):
    assert port.answer(PULL, **port.known) == 200
    port.register.revoke("r1", "sold")

    start, body = port.call(PULL, **port.known)

    assert start["status"] == 401
    assert json.loads(body["body"]) == {"detail": "robot r1 is revoked: sold"}


def test_a_large_body_needs_a_signature_before_it_is_read(status, port):
    large = {"content_length": str(LARGE_BYTES + 1), **port.known}
    stamp = "2026-01-01T00:00:00+00:00"
    signature = port.key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
    signed = {TIME.decode(): stamp, SIGNATURE.decode(): base64.b64encode(signature).decode()}

    assert status(PULL, **large, **signed) == 200
    assert status(PULL, **large) == 401
    assert status(PULL, **large, **{**signed, TIME.decode(): "2026-01-01T00:00:01+00:00"}) == 401
    assert status(PULL, **large, **{**signed, SIGNATURE.decode(): "?"}) == 401


def test_a_long_whole_reply_needs_the_proof_of_a_known_robot_before_it_is_read(status, port):
    long = {"content_length": str(MAX_WHOLE_REPLY_BYTES + 1)}
    good, stranger = (
        sign(key, "POST", REPLY_PATH, utc_now(), "a" * 64)
        for key in (port.key, ec.generate_private_key(ec.SECP384R1()))
    )
    assert status(REPLY_PATH, content_length=str(MAX_WHOLE_REPLY_BYTES)) == 200
    assert status(REPLY_PATH, **long, **good) == 200
    assert status(REPLY_PATH, **long) == 403
    assert status(REPLY_PATH, **long, **stranger) == 403
    assert status(REPLY_PATH, **long, **{**good, TIME_HEADER: "2026-01-01T00:00:00+00:00"}) == 403
    assert (
        status(REPLY_PATH, **{**long, "content_length": str(MOST_WHOLE_BYTES + 1)}, **good) == 413
    )
    port.register.suspend("r1", "in the workshop")
    assert status(REPLY_PATH, **long, **good) == 403


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", "Bearer t0ke", "Bearer t0ken ", "bearer t0ken", "Basic t0ken"],
)
def test_nothing_but_the_whole_token_is_the_token(given, status):
    assert status("/docs", authorization=given) == 401


def test_a_refusal_is_json_says_what_is_missing_and_ends_the_connection(port):
    start, body = port.call("/docs")

    assert (b"www-authenticate", b"Bearer") in start["headers"]
    assert (b"connection", b"close") in start["headers"]
    assert json.loads(body["body"]) == {"detail": "this path needs the admin credential"}


def test_a_websocket_is_closed(port):
    (sent,) = port.call(PULL, kind="websocket")

    assert sent == {"type": "websocket.close", "code": 1008}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content_length": "0"}, 200),
        ({"content_length": str(LARGE_BYTES)}, 200),
        ({"content_length": str(MAX_BODY_BYTES)}, 401),  # the signature is missing
        ({"content_length": str(MAX_BODY_BYTES + 1)}, 413),
        ({"content_length": "9" * 30}, 413),
        ({"content_length": "-1"}, 413),
        ({"content_length": "many"}, 413),
        ({"content_length": "\u0664"}, 413),
        ({"transfer_encoding": "chunked"}, 413),
        ({"content_length": "5", "transfer_encoding": "chunked"}, 413),
    ],
)
def test_a_stranger_cannot_fill_the_memory(headers, expected, status, port):
    assert status(PULL, **headers, **port.known) == expected


def test_our_own_routes_take_no_body(status):
    assert status(HELLO, content_length="0") == 200
    assert status(HELLO, content_length="1") == 413


def test_the_operator_may_send_a_body_but_no_endless_one(status, port):
    assert status("/fleetlearn/v1/admin/runs", content_length="1000", **OPERATOR) == 200
    start = port.call("/v1/control/start-run", transfer_encoding="chunked", **OPERATOR)[0]
    assert start["status"] == 413
    # A part of it stays unread: the next request on this connection would meet its end.
    assert start["headers"].count((b"connection", b"close")) == 1


def test_the_start_and_end_of_the_server_pass(port):
    assert port.call("", kind="lifespan")


# ------------------------------------------------------------------------- so much, so often


def test_an_address_has_so_many_requests_a_second(tmp_path):
    port = Port(tmp_path, requests_per_s=2.0)

    assert [port.answer(HELLO) for _ in range(5)] == [200, 200, 200, 200, 429]
    assert port.answer(HELLO, client="192.0.2.2") == 200
    assert port.answer("/docs", **OPERATOR) == 200
    port.now = 0.5
    assert [port.answer(HELLO) for _ in range(2)] == [200, 429]


def test_who_is_refused_too_often_waits_and_is_told_for_how_long(tmp_path):
    port = Port(tmp_path, refusals_per_s=0.05)
    for _ in range(int(0.05 * BURST_S)):
        assert port.answer("/docs") == 401

    start, body = port.call(HELLO)

    assert start["status"] == 429
    assert (b"retry-after", b"20") in start["headers"]
    assert (b"connection", b"close") in start["headers"]
    assert json.loads(body["body"]) == {"detail": "too many requests from this address"}
    port.now = 20.0
    assert port.answer(HELLO) == 200


def test_answers_of_the_routes_count_as_refusals_too(tmp_path):
    port = Port(tmp_path, refusals_per_s=0.05)
    port.status = 403
    assert [port.answer(HELLO) for _ in range(4)] == [403, 403, 403, 429]

    port = Port(tmp_path / "other", refusals_per_s=0.05)
    port.status = 404  # nothing is published yet
    assert [port.answer(HELLO) for _ in range(4)] == [404] * 4


def test_a_stranger_behind_the_same_router_locks_nobody_out(tmp_path):
    port = Port(tmp_path, refusals_per_s=0.05)
    assert port.answer(PULL, **port.known) == 200
    assert port.answer(HELLO, **{KEY_HEADER: "own"}) == 200
    for _ in range(10):
        port.call("/docs")

    assert port.answer("/docs") == port.answer(HELLO) == 429
    assert port.answer(HELLO, **{KEY_HEADER: "other"}) == 429
    assert port.answer(PULL, **port.known) == port.answer(HELLO, **{KEY_HEADER: "own"}) == 200
    assert port.answer("/docs", **OPERATOR) == 200


def test_a_robot_that_is_too_fast_keeps_its_connection(tmp_path):
    port = Port(tmp_path, requests_per_s=0.5)
    for _ in range(2):  # of its address, which does not know it yet, and of its own bucket
        assert port.answer(PULL, **port.known) == 200

    start, _ = port.call(PULL, **port.known)

    assert start["status"] == 429
    assert (b"connection", b"close") not in start["headers"]


def test_a_damaged_register_does_not_lock_robots_out(tmp_path):
    port = Port(tmp_path)
    assert port.answer(PULL, **port.known) == 200
    (tmp_path / "robots.json").write_text("{")

    assert port.answer(PULL, **port.known) == 200
    assert port.answer(PULL) == 401


def test_a_body_that_comes_too_slowly_ends_the_connection(port):
    cut = []

    async def receive():
        await asyncio.sleep(0 if cut else 3600)
        return {"type": "http.disconnect"}

    scope = {
        "type": "http", "path": PULL, "method": "POST", "client": ("192.0.2.1", 1),
        "headers": [(k.encode(), v.encode()) for k, v in port.known.items()],
        "fleetlearn.cut": lambda: cut.append(True),
    }  # fmt: skip
    port.guard = Guard(port._behind, TOKEN, replace_limits(port, slow_s=0.05))

    asyncio.run(port.guard(scope, receive, None))

    assert cut == [True]


def replace_limits(port, **limits):
    return dataclasses.replace(port.guard._bounds, limits=LimitSettings(**limits))


def test_a_probe_without_credentials_learns_that_the_server_answers_and_nothing_else(tmp_path):
    port = Port(tmp_path)
    start, body = port.call("/healthz", method="GET")
    assert (start["status"], json.loads(body["body"])) == (200, {"detail": "alive"})
    for path in ("/healthz/", "/healthz/x", "/health"):
        assert port.call(path, method="GET")[0]["status"] == 401


def test_a_probe_is_bounded_and_earns_no_trust(tmp_path):
    port = Port(tmp_path, requests_per_s=1.0, refusals_per_s=0.01)
    stranger = {KEY_HEADER: "c3RyYW5nZXI="}
    assert [port.call("/healthz", method="GET", **stranger)[0]["status"] for _ in range(3)] == [
        200, 200, 429,
    ]  # fmt: skip
    port.now += 10.0
    for _ in range(100):  # more than BURST_S of refusals
        port.now += 1.0
        refused = port.call("/nowhere", method="GET", **stranger)[0]["status"]
    assert refused == 429


@pytest.mark.parametrize(
    "name",
    [
        KEY.decode(), SIGNATURE.decode(), TIME.decode(), KEY_HEADER, "x-robot-signature",
        "x-robot-time", "x-robot-server", "authorization", "content-length", "content-type",
        "transfer-encoding", "host",
    ],
)  # fmt: skip
def test_a_header_that_decides_something_is_refused_if_it_is_there_twice(name, port):
    both = {**port.known, name: [port.known.get(name, "1"), "2"]}

    assert port.answer(PULL, **port.known) == 200
    assert port.answer(PULL, **both) == 400
    assert port.answer("/docs", authorization=[OPERATOR["authorization"], "x"]) == 400
    assert port.answer(PULL, **port.known, accept=["a", "b"]) == 200


def test_a_flood_of_one_robot_costs_its_neighbors_behind_the_same_address_nothing(tmp_path):
    port = Port(tmp_path, requests_per_s=10)
    other = public_line(ec.generate_private_key(ec.SECP384R1()).public_key())
    port.register.add("r2", "hall", other)
    neighbor = {KEY.decode(): header_of(other).decode()}
    assert port.answer(PULL, **neighbor) == 200  # its proof is good: it is known from now on

    flood = [port.answer(PULL, **port.known) for _ in range(100)]

    assert flood.count(429) >= 70
    assert [port.answer(PULL, **neighbor) for _ in range(15)] == [200] * 15
    assert port.answer(HELLO) != 429  # nor who is not known there yet


def test_a_robot_for_which_there_is_no_turn_is_told_when_to_come_again(port):
    inner = port.guard._app
    bounds = dataclasses.replace(port.guard._bounds, at_once=AtOnce(1, patience_s=0.01))
    port.guard = Guard(inner, TOKEN, bounds)
    answers = {}

    async def while_one_is_at_work(scope, receive, send):
        port.guard._app = inner
        for who, header in (("robot", b"x"), ("operator", f"Bearer {TOKEN}".encode())):
            sent = []

            async def keep(message, sent=sent):
                sent.append(message)

            headers = [(b"authorization", header)]
            await port.guard({**scope, "headers": headers}, receive, keep)
            answers[who] = sent[0]
        await inner(scope, receive, send)

    port.guard._app = while_one_is_at_work
    assert port.answer(HELLO) == 200
    assert answers["robot"]["status"] == 503
    assert (b"retry-after", b"5") in answers["robot"]["headers"]
    assert answers["operator"]["status"] == 200


def test_a_robot_that_reads_slowly_has_no_turn_while_it_reads(port):
    bounds = dataclasses.replace(port.guard._bounds, at_once=AtOnce(1))
    reached = []

    async def model(scope, receive, send):
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"model"})

    guard = Guard(model, TOKEN, bounds)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def story():
        read = asyncio.Event()

        async def slowly(message):
            await read.wait()

        async def at_once(message):
            pass

        def visit(path, send):
            scope = {
                "type": "http", "path": path, "raw_path": path.encode(), "method": "GET",
                "headers": [], "client": ("192.0.2.1", 1),
            }  # fmt: skip
            return asyncio.create_task(guard(scope, receive, send))

        slow = visit("/fleetlearn/v1/robot/objects/0", slowly)
        await asyncio.sleep(0.05)
        await asyncio.wait_for(visit("/fleetlearn/v1/robot/whoami", at_once), 60)
        assert not slow.done()
        read.set()
        await slow

    asyncio.run(story())
    assert len(reached) == 2
