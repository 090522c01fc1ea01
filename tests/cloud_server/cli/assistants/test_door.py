"""Who may ask over HTTP; test_service.py asks a real process."""

from cloud_server.cli.assistants.door import Door, names_of
from cloud_server.state.settings import LimitSettings, NetworkSettings


def test_nobody_may_guess_tokens_fast_and_who_has_it_never_waits():
    now = [0.0]
    door = Door(
        None, "right", names_of(NetworkSettings(), "0.0.0.0"), LimitSettings(), lambda: now[0]
    )

    def status(token):
        headers = [(b"host", b"localhost:1"), (b"authorization", b"Bearer " + token)]
        refusal = door._refusal({"headers": headers, "client": ("198.51.100.7", 1)})
        return refusal and refusal[0]

    assert [status(b"wrong") for _ in range(21)] == [*[401] * 20, 429]
    assert status(b"right") is None
    now[0] = 1.1
    assert [status(b"wrong") for _ in range(2)] == [401, 429]


def test_a_header_that_decides_and_is_there_twice_is_refused():
    door = Door(None, "right", names_of(NetworkSettings(), "::"), LimitSettings())
    good = [(b"host", b"[::1]:8444"), (b"authorization", b"Bearer right")]
    assert door._refusal({"headers": good}) is None
    assert door._refusal({"headers": [*good, (b"host", b"evil.example")]})[0] == 400
    assert door._refusal({"headers": [*good, good[1]]})[0] == 400
    assert door._refusal({"headers": [good[1]]})[0] == 421


def test_what_it_listens_on_is_a_name_unless_it_is_everything():
    network = NetworkSettings(names=("Fleet.Example.com.",))
    assert names_of(network, "10.0.0.7") == {
        "localhost", "127.0.0.1", "::1", "fleet.example.com", "10.0.0.7"
    }  # fmt: skip
    assert "0.0.0.0" not in names_of(network, "0.0.0.0")
