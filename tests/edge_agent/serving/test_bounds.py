"""What clients can use up, of a server that runs: connections, heads, bodies that do not end."""

import asyncio
import socket
import time

import pytest

from edge_agent.serving.connection import ABORT, MAX_CONNECTIONS
from edge_agent.serving.inference import Bounds, Inference
from edge_agent.serving.rest import RestApp
from edge_agent.serving.turns import Turns

INFER = b"/v2/models/model/infer"
HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(server):
    host, port = server.rest.split(":")
    return socket.create_connection((host, int(port)), timeout=240)


def whole(link):
    return b"".join(iter(lambda: link.recv(65536), b""))


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 17_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(3000)) + b"\r\n",
    ],
    ids=["header", "path", "headers"],
)
def test_a_head_that_is_too_long_is_refused(served, head):
    with connect(served) as link:
        link.sendall(head)
        assert whole(link).startswith(b"HTTP/1.1 400 ")


def test_a_head_that_is_just_short_enough_is_answered_each_time(served):
    head = HEALTH.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 16_200 + b"\r\n\r\n")
    with connect(served) as link:
        for _ in range(2):  # a head is counted by itself
            link.sendall(head)
            answer = b""
            while not answer.endswith(b'{"live":true}'):
                more = link.recv(65536)
                assert more
                answer += more
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_for_one_more_connection_the_longest_idle_one_ends(serve):
    with serve("slow_s = 200.0\n") as server:
        first = connect(server)
        first.sendall(HEALTH)
        assert first.recv(12) == b"HTTP/1.1 200"
        time.sleep(0.01)
        links = [connect(server) for _ in range(MAX_CONNECTIONS)]
        whole(first)  # it is ended
        for link in (links[0], links[-1]):
            link.sendall(HEALTH)
            assert link.recv(12) == b"HTTP/1.1 200"
        for link in links:
            link.close()


def test_bodies_that_do_not_end_may_fill_so_much_and_others_are_answered(serve):
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" % INFER
    with serve("slow_s = 200.0\nmax_body_mb = 1.0\n") as server:
        links = [connect(server) for _ in range(12)]
        for link in links:
            link.sendall(head + b" " * 990_000)
            link.settimeout(0.5)
        answers = []
        while not answers:
            for link in links:
                try:
                    answers.append(link.recv(65536))
                except TimeoutError:
                    continue
        assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in answers)
        assert b"too many large requests arrive" in answers[0]
        with server.client() as client:
            small = client.post(INFER.decode(), content=b"{}")
            assert small.status_code == 400
        assert 'outcome="full"} ' in server.until("/metrics").text
        for link in links:
            link.close()
        with server.client() as client:  # what they held is free again
            end = time.monotonic() + 240
            while client.post(INFER.decode(), content=b" " * 900_000).status_code == 503:
                assert time.monotonic() < end


def test_who_does_not_take_an_answer_is_cut():
    turns = Turns(2, 100)
    app = RestApp(Inference(turns, 1), Bounds(max_body=100, bodies=1, slow_s=0.01))

    async def ask():
        cut = asyncio.Event()
        scope = {"method": "GET", "path": "/v2", "headers": [], ABORT: cut.set}

        async def send(message):
            if message["type"] == "http.response.body":
                await cut.wait()  # as uvicorn does where the client does not read

        await asyncio.wait_for(app(scope, None, send), 240)
        return cut.is_set()

    assert asyncio.run(ask())
    turns.close(240)


def test_a_client_that_sends_all_before_it_reads_sees_why_it_is_refused(served):
    for length, more in ((b"Content-Length: 20000000", 20_000_000), (b"Content-Length: 9", 9)):
        path = INFER if more > 9 else b"/v2"
        with connect(served) as link:
            link.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n" % (path, length))
            for _ in range(0, more, 100_000):
                link.sendall(b" " * min(more, 100_000))
            answer = whole(link)
        code = b"413" if more > 9 else b"405"
        assert answer.startswith(b"HTTP/1.1 %s " % code)
        assert b'{"error":"' in answer
