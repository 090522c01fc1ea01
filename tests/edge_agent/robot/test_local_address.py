"""Where is served: nothing that another machine reaches."""

import os
import socket
import stat

import pytest

from edge_agent.robot.local_address import Address, listen, parse_address, remove
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Address(host="127.0.0.1", port=8000)),
        ("127.9.9.9:1", Address(host="127.9.9.9", port=1)),
        ("localhost:8000", Address(host="127.0.0.1", port=8000)),
        ("[::1]:8000", Address(host="::1", port=8000)),
        ("unix:/run/serve/rest", Address(path="/run/serve/rest")),
    ],
)
def test_a_unix_socket_and_loopback_are_addresses(text, address):
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *[
            (f"{host}:8000", "is reached by other machines")
            for host in ("0.0.0.0", "[::]", "192.168.0.7", "robot.local", "127.0.0.1.example")
        ],
        ("8000", "expected 127.0.0.1:PORT"),
        (":8000", "expected 127.0.0.1:PORT"),
        ("127.0.0.1", "expected 127.0.0.1:PORT"),
        ("127.0.0.1:65536", "expected 127.0.0.1:PORT"),
        ("127.0.0.1:²", "expected 127.0.0.1:PORT"),
        ("unix:rest", "an absolute path"),
        ("unix:/" + "a" * 107, "at most 107 bytes"),
    ],
)
def test_everything_else_is_refused_with_the_reason(text, words):
    with pytest.raises(ValueError, match=words):
        parse_address(text)


def test_a_socket_is_open_to_user_and_group_and_a_dead_one_is_replaced(tmp_path):
    address = Address(path=str(tmp_path / "rest"))
    before = os.umask(0)
    try:
        dead = listen(address)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "rest").stat().st_mode) == 0o660
    dead.close()  # as a process that is killed leaves it

    with listen(address), pytest.raises(SettingsError, match="another process listens there"):
        listen(address)
    remove(address)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    (tmp_path / "rest").write_text("mine")

    with pytest.raises(SettingsError, match="no socket"):
        listen(Address(path=str(tmp_path / "rest")))
    assert (tmp_path / "rest").read_text() == "mine"


def test_a_port_that_is_taken_or_a_folder_that_is_missing_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port}: Address already in use"):
            listen(Address(host="127.0.0.1", port=port))
    with pytest.raises(SettingsError, match="No such file"):
        listen(Address(path=str(tmp_path / "missing" / "rest")))


def test_answers_leave_at_once(tmp_path):
    with listen(Address(host="127.0.0.1")) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # or asyncio would not set TCP_NODELAY
