"""Connections are counted before TLS; every bound is one of a real port."""

import socket

import pytest

from cloud_server.state.settings import LimitSettings
from cloud_server.web import listener
from cloud_server.web.listener import ConnectionCount, listen
from fleet_model.errors import SettingsError

from .conftest import read_answer, request, rest


def test_one_address_has_so_many_connections_and_another_its_own(open_port):
    port = open_port(max_connections_per_address=4, slow_s=30)
    silent = [port.tcp() for _ in range(4)]

    assert rest(port.tcp()) == b""  # closed at once, without a byte of TLS
    assert port.status("/docs", source="127.0.0.2") == 401
    silent[0].close()
    while True:  # until the server has seen it
        try:
            assert port.status("/docs") == 401
            break
        except OSError:
            continue


def test_there_are_so_many_connections_in_all(open_port):
    port = open_port(max_connections=8, max_connections_per_address=4, slow_s=30)
    for number in range(2, 4):
        for _ in range(4):
            port.tcp(source=f"127.0.0.{number}")

    assert rest(port.tcp(source="127.0.0.9")) == b""
    assert port.status("/docs") == 401  # commands on the server's own machine have room


def test_who_says_nothing_in_the_handshake_is_cut(open_port, monkeypatch):
    monkeypatch.setattr(listener, "HANDSHAKE_S", 2.0)
    port = open_port(max_connections_per_address=4)

    silent = [port.tcp() for _ in range(4)]
    silent[0].sendall(b"\x16\x03\x01")  # the first bytes of a ClientHello

    assert [rest(one) for one in silent] == [b""] * 4
    assert port.status("/docs") == 401


def test_the_server_goes_on_when_peers_end_in_the_handshake_or_reset(open_port):
    port = open_port(max_connections_per_address=4, slow_s=30)
    for _ in range(20):
        with port.tcp() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
            one.sendall(b"GET / HTTP/1.1\r\n\r\n")
            rest(one)

    connection = port.tls()
    connection.sendall(request("/fleetlearn/v1/robot/whoami"))
    assert read_answer(connection).startswith(b"HTTP/1.1 200")


def test_doors_forget_an_address_that_has_left():
    connections = ConnectionCount(LimitSettings(max_connections=8, max_connections_per_address=4))

    assert [connections.enter("a") for _ in range(5)] == [True] * 4 + [False]
    assert [connections.enter(name) for name in "bcdef"] == [True] * 4 + [False]
    for name in "aaaabcde":
        connections.leave(name)
    assert connections.open == 0
    assert not connections._open


def test_a_port_that_is_taken_is_said_to_be_so():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(
            SettingsError, match=r"cannot listen on 127.0.0.1:\d+ \(Address already"
        ):
            listen("127.0.0.1", other.getsockname()[1], LimitSettings())


def test_a_name_that_is_no_host_is_said_to_be_so():
    with pytest.raises(SettingsError, match=r"cannot listen on no\.such\.invalid"):
        listen("no.such.invalid", 1, LimitSettings())
