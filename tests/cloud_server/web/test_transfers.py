import asyncio
import gc
import time
import weakref

import pytest

from cloud_server.robots.register import Register
from cloud_server.web import transfers
from cloud_server.web.fleet_keys import header_of
from cloud_server.web.transfers import (
    AT_ONCE,
    LARGE_BYTES,
    BodySpool,
    SlowPeerError,
    Turns,
    patient,
    receive_whole,
)
from fleet_model.protocol.proof import make_key

from .conftest import PATIENCE_S, read_answer, request, rest

WHOAMI = "/fleetlearn/v1/robot/whoami"


def spooled(directory, pieces):
    async def both():
        with BodySpool(directory) as spool:
            for piece in pieces:
                await spool.write(piece)
            return spool.size, await spool.read(), [p async for p in spool.pieces(1000)]

    return asyncio.run(both())


@pytest.mark.parametrize("sizes", [[], [0], [1], [LARGE_BYTES], [LARGE_BYTES + 1], [70_000] * 7])
def test_a_spool_gives_back_what_was_put_in(tmp_path, sizes):
    pieces = [bytes([number % 251]) * size for number, size in enumerate(sizes)]

    size, whole, parts = spooled(tmp_path, pieces)

    assert whole == b"".join(pieces) == b"".join(parts)
    assert size == len(whole)


def test_a_spool_leaves_nothing_behind_even_while_it_is_in_use(tmp_path):
    async def look():
        with BodySpool(tmp_path) as spool:
            await spool.write(bytes(LARGE_BYTES * 3))
            return list(tmp_path.iterdir())

    assert asyncio.run(look()) == []


def test_a_body_of_a_slow_peer_or_of_one_that_has_gone_is_given_up(tmp_path):
    async def gone():
        return {"type": "http.disconnect"}

    async def silent():
        await asyncio.sleep(3600)

    async def drip():
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def read(receive):
        with BodySpool(tmp_path) as spool:
            await receive_whole(receive, spool, slow_s=0.1)

    for receive in (gone, silent, drip):
        with pytest.raises(SlowPeerError):
            asyncio.run(read(receive))


def test_a_peer_that_does_not_read_is_given_up(monkeypatch):
    async def stuck(message):
        await asyncio.sleep(3600)

    monkeypatch.setattr(transfers, "SLOWEST_BYTES_PER_S", 1e9)
    with pytest.raises(SlowPeerError):
        asyncio.run(patient(stuck, slow_s=0.05)({"type": "http.response.start"}))


def test_a_long_answer_goes_out_in_pieces_of_the_same_bytes():
    sent = []

    async def keep(message):
        sent.append(message)

    body = bytes(range(256)) * 2000
    asyncio.run(
        patient(keep, slow_s=1)({"type": "http.response.body", "body": body, "more_body": False})
    )

    assert b"".join(message["body"] for message in sent) == body
    assert [message["more_body"] for message in sent] == [True] * (len(sent) - 1) + [False]
    assert max(len(message["body"]) for message in sent) == transfers.PIECE_BYTES


class Body(bytearray):
    """Bytes that can be watched."""


def test_what_a_request_leaves_behind_is_gone_before_the_next_one(tmp_path):
    watched = []

    async def app(scope, receive, send):
        body = Body(LARGE_BYTES)
        cycle = [body]
        cycle.append(cycle)
        watched.append(weakref.ref(body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def nothing(*_):
        return None

    async def transfer():
        with BodySpool(tmp_path) as body:
            await body.write(bytes(LARGE_BYTES + 1))
            await Turns(tmp_path).run(app, {}, body, nothing, nothing)

    gc.disable()
    try:
        asyncio.run(transfer())
        (body,) = watched
        assert body() is None
    finally:
        gc.enable()


def test_no_turn_begins_while_the_server_is_busy(tmp_path):
    looks = iter([True, True, False])
    order = []

    def busy():
        order.append(look := next(looks))
        return look

    async def app(scope, receive, send):
        order.append("app")

    async def nothing(*_):
        return None

    async def transfer():
        with BodySpool(tmp_path) as body:
            await Turns(tmp_path, busy).run(app, {}, body, nothing, nothing)

    asyncio.run(transfer())
    assert order == [True, True, False, "app"]


# --------------------------------------------------------------------- over TLS, on a real port


@pytest.fixture
def robot(tmp_path):
    """Return the key header of an admitted robot."""
    line = make_key(tmp_path / "robot.key")
    Register(tmp_path / "robots.json").add("r1", "hall", line)
    return f"flwr-public-key: {header_of(line).decode()}"


def wait_until(done):
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_so_many_transfers_at_a_time_and_polls_beside_them(open_port, robot):
    port = open_port()
    pulls = [port.tls() for _ in range(3 * AT_ONCE)]
    for one in pulls:
        one.sendall(request("/v1/fleet/pull-object", robot, method="POST"))
    wait_until(lambda: port.app.inside == AT_ONCE)

    assert port.status("/v1/fleet/pull-messages", robot, method="POST") == 200

    port.app.hold.set()
    assert {read_answer(one).split()[1] for one in pulls} == {b"200"}
    assert port.app.most_inside == AT_ONCE + 1


def test_a_body_arrives_whole_and_a_slow_one_holds_no_turn(open_port, robot):
    port = open_port(slow_s=PATIENCE_S)
    port.app.hold.set()
    head = request("/v1/fleet/push-object", robot, "content-length: 60000", method="POST")
    slow = [port.tls() for _ in range(2 * AT_ONCE)]
    for one in slow:
        one.sendall(head + b"a" * 100)
    quick = port.tls()
    quick.sendall(head + b"b" * 60000)

    assert read_answer(quick).startswith(b"HTTP/1.1 200")
    assert port.app.bodies == [b"b" * 60000]


def test_a_body_that_comes_too_slowly_is_cut(open_port, robot):
    port = open_port(slow_s=0.3)
    connection = port.tls()
    head = request("/v1/fleet/push-object", robot, "content-length: 60000", method="POST")
    connection.sendall(head + b"a" * 100)

    assert rest(connection) == b""
    assert port.app.bodies == []


def test_who_does_not_read_the_answer_is_cut(open_port, monkeypatch):
    monkeypatch.setattr(transfers, "SLOWEST_BYTES_PER_S", 1e9)
    port = open_port(slow_s=2)
    port.app.size = 40_000_000
    connection = port.tls()
    connection.sendall(request("/fleetlearn/v1/robot/big"))
    wait_until(lambda: port.app.bodies)
    wait_until(lambda: not port.server.server_state.connections)

    assert len(rest(connection)) < 40_000_000
