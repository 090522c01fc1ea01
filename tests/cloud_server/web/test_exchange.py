"""Held requests and whole messages at a real server: what a robot hears, and when."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import numpy as np
import pytest
from flwr.app import Message

from cloud_server.cli.admin_client import AdminClient
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register, new_robot
from cloud_server.state.settings import LimitSettings, load_settings
from cloud_server.web import exchange
from cloud_server.web.exchange import Exchange
from cloud_server.web.news import Answer
from edge_agent.link.flower_connection import FleetConnection
from edge_agent.link.news import WholeMessages
from edge_agent.link.server_link import HttpsStore
from edge_agent.robot.server_settings import ServerLink
from fleet_model.errors import FleetError, RefusedError, UpdateError
from fleet_model.protocol.proof import make_key, sign, utc_now
from fleet_model.protocol.report import RobotReport, pack_report
from fleet_model.protocol.routes import MESSAGE, NEWS, REPLY, ROBOT
from fleet_model.protocol.whole import MAX_WHOLE_BYTES, MOST_WHOLE_BYTES, join
from fleet_model.protocol.wire import pack_update, unpack_request
from fleet_model.types import Update

pytestmark = pytest.mark.flower
HOLD_S = LimitSettings().hold_s


@pytest.fixture
def robot(running_server, tmp_path):
    """Return what makes a robot's link: r1, r2, ..., admitted."""
    made = []

    def make(name):
        key = tmp_path / f"{name}.key"
        line, register = make_key(key), Register(running_server.server_dir.robots)
        with suppress(FleetError):
            register.forget(name)
        register.add(name, "hall", line)
        link = ServerLink(
            address=running_server.address, key=key, ca=running_server.server_dir.kit / "ca.crt"
        )
        store = HttpsStore(link)
        made.append(store)
        store.hello()
        return store

    yield make
    for store in made:
        store.close()


def ask(store, tag=""):
    """Hold one request to its end; return the answer and the seconds it took."""
    begin = time.monotonic()
    content = store.ask("GET", f"{ROBOT}{NEWS}?tag={tag}", wait_s=60.0)
    return json.loads(content), time.monotonic() - begin


def held(store, tag):
    """Hold a request in another thread; return its future."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(ask, store, tag)
    pool.shutdown(wait=False)
    time.sleep(1.0)
    return future


@pytest.fixture
def fleet(running_server, robot):
    """Return two robots online, r1 with whole messages and r2 as an agent of before, and a run."""
    stores = {name: robot(name) for name in ("r1", "r2")}
    ca = (running_server.server_dir.kit / "ca.crt").read_bytes()
    links = {
        name: FleetConnection(
            running_server.address, ca, store.key, WholeMessages(store) if name == "r1" else None
        )
        for name, store in stores.items()
    }
    for link in links.values():
        link.activate()
    admin = AdminClient(running_server.server_dir)
    runs = []

    def start():
        runs.append(admin.start_run(1)["id"])

    yield stores, links, start
    for run in runs:
        with suppress(FleetError):
            admin.stop_run(run)
    for link in links.values():
        link.close()


def answer_to(message):
    """Return a good update."""
    request = unpack_request(message.content)
    weights = {name: np.ones_like(v) * 0.01 for name, v in request.checkpoint.weights.items()}
    update = Update(
        robot="any", base_version=request.checkpoint.version, weights=weights, num_examples=5,
        num_steps=1, metrics={},
    )  # fmt: skip
    return Message(pack_update(update), reply_to=message)


def receive(link):
    """Return the next message, which may be on its way."""
    for _ in range(600):
        if (message := link.receive()) is not None:
            return message
        time.sleep(0.1)
    raise AssertionError("no message")


def test_a_held_request_ends_when_the_models_change(robot, running_server):
    store = robot("r1")
    first, _ = ask(store)  # knows no tag yet: answered at once
    waiting = held(store, first["tag"])
    assert not waiting.done()

    os.utime(next((running_server.server_dir.store / "channels").glob("*.json")))

    answer, seconds = waiting.result(60)
    assert answer["tag"] != first["tag"]
    assert not answer["message"]
    assert seconds < HOLD_S


def test_a_held_request_ends_when_the_robot_is_asked_and_both_ways_close_the_round(
    fleet, running_server
):
    stores, links, start = fleet
    waiting = held(stores["r1"], ask(stores["r1"])[0]["tag"])
    start()

    answer, seconds = waiting.result(60)
    assert answer["message"]
    assert seconds < HOLD_S
    moved = links["r1"].objects, links["r2"].objects
    for link in links.values():
        link.reply(answer_to(receive(link)), 0.1)
    assert links["r1"].bytes_up > 0 < links["r1"].bytes_down
    assert all(link.objects > before for link, before in zip(links.values(), moved, strict=True))
    for _ in range(600):
        if running_server.server_dir.history.exists():
            break
        time.sleep(0.1)
    record = json.loads(running_server.server_dir.history.read_text().splitlines()[-1])
    assert {one["name"]: one["outcome"] for one in record["robots"]} == {
        "r1": "accepted",
        "r2": "accepted",
    }


def test_a_robot_that_hangs_up_loses_no_question(fleet, running_server):
    stores, links, start = fleet
    tag = ask(stores["r1"])[0]["tag"]
    with pytest.raises(FleetError):  # it gives up while its request is held
        give_up(stores["r1"], f"{ROBOT}{NEWS}?tag={tag}")
    start()
    assert ask(stores["r1"], tag)[0]["message"]
    whole = WholeMessages(stores["r1"])
    assert whole.receive() is not None  # and dies with it
    assert whole.receive() is None

    stores["r1"].hello()

    assert ask(stores["r1"], tag)[0]["message"]
    message = receive(links["r1"])
    reply = answer_to(message)
    links["r1"].reply(reply, 0.1)
    links["r1"].reply(reply, 0.1)  # the answer was lost: sent again, taken once
    other = answer_to(message)
    with pytest.raises(UpdateError):
        links["r1"].reply(other, 0.1)


def give_up(store, path):
    """Ask, and hang up before there is an answer."""
    try:
        httpx.get(
            f"https://{store.address}{path}",
            headers=dict(sign(store.key, "GET", path, utc_now(), store._server)),
            verify=store._client._transport._pool._ssl_context,
            timeout=1.0,
        )
    except httpx.TimeoutException as error:
        raise FleetError(str(error)) from None


def test_a_reply_is_taken_from_its_own_robot_alone_and_whole(fleet):
    stores, links, start = fleet
    start()
    ask(stores["r1"])
    sent = []
    links["r1"]._whole.reply = lambda parts: sent.append(list(parts)) or 1
    links["r1"].reply(answer_to(receive(links["r1"])), 0.1)
    (parts,) = sent
    path = ROBOT + REPLY
    with pytest.raises(RefusedError, match="speaks for itself only"):
        stores["r2"].ask("POST", path, join(parts))
    with pytest.raises(RefusedError, match="all the objects that it announces"):
        stores["r1"].ask("POST", path, join(parts[:-1]))
    with pytest.raises(RefusedError, match="all the objects that it announces"):
        stores["r1"].ask("POST", path, join([*parts, b"more"]))
    with pytest.raises(RefusedError, match="expected a whole reply"):
        stores["r1"].ask("POST", path, b"\0\0\0\1")
    with pytest.raises(FleetError, match="413"):
        stores["r1"].ask("POST", path, bytes(MOST_WHOLE_BYTES + 1))

    assert stores["r1"].ask("POST", path, join(parts)) is not None


def test_a_suspended_robot_waits_no_longer_and_gets_no_question(robot, running_server):
    store = robot("r1")
    tag = ask(store)[0]["tag"]
    waiting = held(store, tag)
    register = Register(running_server.server_dir.robots)

    register.suspend("r1", "its camera is dirty")

    answer, seconds = waiting.result(60)
    assert seconds < HOLD_S
    assert not answer["message"]
    assert store.standing.state == "suspended"
    for route in (MESSAGE, REPLY):
        with pytest.raises(RefusedError, match="robot r1 is suspended"):
            store.ask("POST", ROBOT + route)
    waiting = held(store, ask(store)[0]["tag"])  # it follows models, and so it may wait
    register.revoke("r1", "stolen")
    with pytest.raises(RefusedError, match=r"r1 is revoked \(stolen\)"):
        waiting.result(60)
    with pytest.raises(RefusedError, match="revoked"):
        ask(store)


def test_a_robot_holds_one_request_and_a_newer_one_ends_it(robot):
    store = robot("r1")
    tag = ask(store)[0]["tag"]
    first = held(store, tag)
    second = held(store, tag)

    _, seconds = first.result(60)

    assert seconds < HOLD_S
    assert not second.done()


def test_a_stranger_is_not_held(running_server, tmp_path):
    key = tmp_path / "stranger.key"
    make_key(key)
    ca = running_server.server_dir.kit / "ca.crt"
    store = HttpsStore(ServerLink(address=running_server.address, key=key, ca=ca))

    with pytest.raises(RefusedError, match="unknown robot key"):
        ask(store)


@pytest.mark.slow
def test_the_server_ends_soon_while_many_requests_are_held(server_dir, tmp_path):
    register, links = Register(server_dir.robots), []
    for number in range(50):
        key = tmp_path / f"r{number}.key"
        register.add(f"r{number}", "hall", make_key(key))
        links.append(key)
    port = load_settings(server_dir.settings, {}).network.port
    log = tmp_path / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "cloud_server.cli", "start", str(server_dir.root)],
            stderr=stream,
        )
    try:
        while b"listening" not in log.read_bytes():
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        ended = threading.Barrier(51)

        def hold(key):
            link = ServerLink(address=f"127.0.0.1:{port}", key=key, ca=server_dir.kit / "ca.crt")
            store = HttpsStore(link)
            tag = ask_patiently(store)
            with suppress(FleetError):
                store.ask("GET", f"{ROBOT}{NEWS}?tag={tag}", wait_s=60.0)
            ended.wait(240)

        for key in links:
            threading.Thread(target=hold, args=(key,), daemon=True).start()
        while len(list(log.read_text().splitlines())) < 1 or ended.n_waiting:
            time.sleep(0.1)
        time.sleep(15.0)
        assert ended.n_waiting == 0  # all are held

        server.terminate()

        assert server.wait(240) == 0
        ended.wait(240)
        assert "left as it is" not in log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        server.kill()


def ask_patiently(store):
    """Return the tag from a server that has just begun to listen."""
    while True:
        with suppress(FleetError):
            return ask(store)[0]["tag"]
        time.sleep(0.2)


def test_a_request_for_news_is_a_look_that_keeps_the_channel_and_takes_the_report(tmp_path):
    seen, told = LastSeen(tmp_path / "seen.json"), pack_report(RobotReport(battery=80.0))
    seen.looked("r1", 4, None, 1, "ab", "stable")
    r1 = new_robot("r1", "hall", make_key(tmp_path / "r1.key"))

    class Authenticator:
        hold_s = 1.0

        def registered(self, line):
            return r1

        def robot(self, request):
            return r1

        def standing(self, robot):
            return "{}"

    class Nothing:
        async def wait(self, robot, tag, hold_s, gone):
            return Answer(message=False, tag=tag, alive=True)

    Authenticator.seen = seen
    app = Exchange(None, Authenticator(), Nothing(), None)

    async def get(query):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.get(f"https://server{ROBOT}{NEWS}?{query}")

    good = asyncio.run(get(f"tag=t1&active=5&protocol=2&agent=ab&report={told}"))
    bad = [asyncio.run(get(query)).status_code for query in ("active=x", "report=!", "agent=no")]

    assert good.json() == {"message": False, "tag": "t1", "alive": True}
    assert (seen.of("r1").channel, seen.of("r1").active_version) == ("stable", 5)
    assert seen.report("r1").battery == 80.0
    assert bad == [400, 400, 400]


def test_a_robot_says_how_long_a_whole_question_may_be_and_few_read_long_ones_at_a_time(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(exchange, "MOST_LONG", 1)
    r1, asked, sent = new_robot("r1", "hall", make_key(tmp_path / "r1.key")), [], []

    class Authenticator:
        hold_s = 1.0

        def robot(self, request):
            return r1

    class Nodes:
        async def refresh(self, robot):
            pass

        def node_of(self, robot):
            return 7

        def handed_out(self, node_id):
            pass

    class Whole:
        def hand_out(self, node_id, most_bytes):
            asked.append(most_bytes)
            return bytes(most_bytes)

    app = Exchange(None, Authenticator(), Nodes(), Whole())

    async def ask_for(query, send):
        scope = {
            "type": "http", "method": "POST", "path": ROBOT + MESSAGE, "headers": [],
            "query_string": query,
        }  # fmt: skip
        await app(scope, None, send)

    async def read(message):
        sent.append(len(message.get("body", b"")))
        if message["type"] == "http.response.body" and len(asked) == 1:
            await ask_for(b"most=99999999", read)  # while the first is being read

    asyncio.run(ask_for(b"most=99999999", read))
    for query in (b"most=99999999", b"most=700000", b"", b"most=-1", b"most=many", b"most=%D9%A4"):
        asyncio.run(ask_for(query, read))

    few = MAX_WHOLE_BYTES
    assert asked == [MOST_WHOLE_BYTES, few, MOST_WHOLE_BYTES, 700_000, few, few, few, few]
    assert sent[1] == MOST_WHOLE_BYTES
