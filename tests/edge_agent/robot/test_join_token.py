"""The token of a kit on a robot."""

import stat

import pytest

from edge_agent.robot import join_token
from edge_agent.robot.join_token import JoinToken, has_token, machine_name
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import NAME_HEADER, TOKEN_HEADER


@pytest.fixture
def kit(tmp_path):
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "token").write_text("abc.secret\n")
    return tmp_path / "kit"


def test_a_token_is_kept_for_this_user_alone_until_the_server_knows_the_robot(kit, tmp_path):
    token = JoinToken(tmp_path)
    assert token.headers() == {}
    assert token.take(kit, "r1")
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert token.headers() == {TOKEN_HEADER: "abc.secret", NAME_HEADER: "r1"}
    assert has_token(tmp_path)
    token.used()
    token.used()
    assert token.headers() == {}
    assert not has_token(tmp_path)


def test_a_kit_without_a_token_gives_none(kit, tmp_path):
    (kit / "token").unlink()
    assert not JoinToken(tmp_path).take(kit, "r1")
    assert not has_token(tmp_path)


@pytest.mark.parametrize("content", [b"", b"one\n", b"a\nb\nc\n", b"\xff\xfe"])
def test_a_file_that_is_no_token_is_told_and_not_sent(tmp_path, caplog, content):
    (tmp_path / "token").write_bytes(content)
    assert JoinToken(tmp_path).headers() == {}
    assert "is no token of a kit" in caplog.text


def test_a_name_that_no_robot_can_have_is_told_at_once(kit, tmp_path):
    with pytest.raises(SettingsError, match="--name my robot: expected letters"):
        JoinToken(tmp_path).take(kit, "my robot")


@pytest.mark.parametrize(
    ("host", "name"), [("jetson.local", "jetson.local"), ("my robot!", "my-robot-"), ("_", "robot")]
)
def test_a_host_name_becomes_the_name_of_a_robot(monkeypatch, host, name):
    monkeypatch.setattr(join_token.socket, "gethostname", lambda: host)
    assert machine_name() == name
