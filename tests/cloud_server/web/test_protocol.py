"""What a peer may send before anybody knows who it is; raw bytes over TLS."""

import pytest

from .conftest import read_answer, request, rest

WHOAMI = "/fleetlearn/v1/robot/whoami"


def test_a_connection_on_which_nothing_comes_is_cut(open_port):
    assert rest(open_port(slow_s=0.2).tls()) == b""


@pytest.mark.parametrize("drip", [b"G", b"\r\n", b"x-a: b\r\n"])
def test_a_head_that_comes_byte_by_byte_is_cut(open_port, drip):
    connection = open_port(slow_s=0.5).tls()
    connection.settimeout(0.05)
    if drip.startswith(b"x"):
        connection.sendall(b"GET / HTTP/1.1\r\n")
    ended = False
    while not ended:  # no byte ever ends the head, and no byte starts the clock anew
        try:
            connection.sendall(drip)
            ended = connection.recv(100) == b""
        except TimeoutError:
            continue
        except OSError:
            ended = True


def test_a_second_head_is_bounded_like_the_first(open_port):
    connection = open_port(slow_s=2).tls()
    connection.sendall(request(WHOAMI))
    assert read_answer(connection).endswith(b"ok")
    connection.sendall(b"GET /half HTTP/1.1\r\n")

    assert rest(connection) == b""


def test_a_robot_that_keeps_its_connection_idle_is_not_cut(open_port):
    port = open_port(slow_s=2)
    idle = port.tls()
    idle.sendall(request(WHOAMI))
    read_answer(idle)

    assert rest(port.tls()) == b""  # opened later, cut by now

    idle.sendall(request(WHOAMI))
    assert read_answer(idle).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nx: " + b"a" * 300_000,
        b"GET /" + b"a" * 300_000,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 50_000,
    ],
)
def test_a_head_without_end_is_not_collected(open_port, head):
    port = open_port(slow_s=30)
    connection = port.tls()
    try:
        connection.sendall(head)
        answer = rest(connection)
    except OSError:
        answer = b""

    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert port.app.bodies == []


def test_one_request_may_wait_for_the_answer_before_it_and_no_more(open_port):
    port = open_port()
    two = port.tls()
    two.sendall(request(WHOAMI) * 2)
    first = read_answer(two)
    while first.count(b"HTTP/1.1 200") < 2:
        first += two.recv(1000)

    many = port.tls()
    many.sendall(request(WHOAMI) * 200)

    assert b"400 Bad Request" in rest(many)
    assert len(port.app.bodies) <= 5


@pytest.mark.parametrize(
    "start",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\n\r\n",
        b"GET http://x HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\nupgrade: h2c\r\nconnection: upgrade, close\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
    ],
)
def test_nonsense_is_refused_and_makes_no_line_in_the_log(open_port, start, caplog):
    connection = open_port(slow_s=2).tls()
    connection.sendall(start)

    answer = rest(connection)

    assert answer == b"" or answer.split()[1] in (b"400", b"401", b"413"), answer
    assert caplog.text == ""
