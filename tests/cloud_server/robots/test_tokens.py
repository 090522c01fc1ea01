"""Tokens, and what an attacker may try with them."""

import stat
import threading
from datetime import datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.register import Register
from cloud_server.robots.tokens import WRONG, Tokens
from fleet_model.errors import RefusedError, SettingsError
from fleet_model.protocol.proof import public_line

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)


def new_key():
    return public_line(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.fixture
def tokens(tmp_path):
    return Tokens(tmp_path / "tokens.json")


@pytest.fixture
def register(tmp_path):
    return Register(tmp_path / "robots.json")


def test_without_a_token_of_the_operator_none_admits_anybody(tokens, register):
    with pytest.raises(RefusedError, match=WRONG):
        tokens.admit("guess", new_key(), "r1", register, NOW)
    assert register.robots() == ()


def test_a_token_admits_with_its_site_and_labels_and_is_kept_as_a_hash(tokens, register, tmp_path):
    token = tokens.make(NOW, valid=DAY, site="hall-1", labels=("gpu",), pending=True)
    robot = tokens.admit(token, new_key(), "r1", register, NOW)
    assert (robot.name, robot.site, robot.labels, robot.state) == (
        "r1", "hall-1", ("gpu",), "pending",
    )  # fmt: skip
    content = (tmp_path / "tokens.json").read_text()
    assert token not in content
    assert token.partition(".")[2] not in content
    assert stat.S_IMODE((tmp_path / "tokens.json").stat().st_mode) == 0o600


def test_a_used_token_admits_nobody_else(tokens, register):
    token = tokens.make(NOW, valid=DAY)
    tokens.admit(token, new_key(), "r1", register, NOW)
    with pytest.raises(RefusedError, match="was for use once, and is used up"):
        tokens.admit(token, new_key(), "r2", register, NOW)
    assert [robot.name for robot in register.robots()] == ["r1"]


def test_an_expired_token_admits_nobody_to_the_second(tokens, register):
    token = tokens.make(NOW, valid=DAY, uses=2)
    tokens.admit(token, new_key(), "r1", register, NOW + DAY - timedelta(seconds=1))
    with pytest.raises(RefusedError, match="expired at 2026-01-02 00:00 UTC"):
        tokens.admit(token, new_key(), "r2", register, NOW + DAY)


def test_a_revoked_token_is_as_one_that_never_was(tokens, register):
    token = tokens.make(NOW, valid=DAY)
    tokens.revoke(token.partition(".")[0])
    with pytest.raises(RefusedError, match=WRONG):
        tokens.admit(token, new_key(), "r1", register, NOW)
    with pytest.raises(SettingsError, match="there is no token"):
        tokens.revoke("none")


def test_a_repeated_request_admits_no_robot_that_was_forgotten(tokens, register):
    token, key = tokens.make(NOW, valid=DAY, uses=5), new_key()
    tokens.admit(token, key, "r1", register, NOW)
    register.forget("r1")
    with pytest.raises(RefusedError, match="has admitted this key before"):
        tokens.admit(token, key, "r1", register, NOW)
    assert register.robots() == ()


@pytest.mark.parametrize("cut", [slice(0, -1), slice(9, None), slice(0, 8), slice(0, 0)])
def test_a_part_of_a_token_is_none(tokens, register, cut):
    token = tokens.make(NOW, valid=DAY)
    with pytest.raises(RefusedError, match=WRONG):
        tokens.admit(token[cut], new_key(), "r1", register, NOW)


def test_of_many_that_ask_at_once_one_wins(tokens, register):
    token, outcomes = tokens.make(NOW, valid=DAY), []
    keys = [new_key() for _ in range(8)]
    barrier = threading.Barrier(len(keys))

    def ask(number):
        barrier.wait()
        try:
            outcomes.append(tokens.admit(token, keys[number], f"r{number}", register, NOW).name)
        except RefusedError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(keys))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.startswith("r") for one in outcomes) == len(register.robots()) == 1
    assert sum("used up" in one for one in outcomes) == len(keys) - 1


def test_robots_with_one_host_name_get_numbers(tokens, register):
    token = tokens.make(NOW, valid=DAY, uses=3)
    names = [tokens.admit(token, new_key(), "ubuntu", register, NOW).name for _ in range(3)]
    assert names == ["ubuntu", "ubuntu-2", "ubuntu-3"]


@pytest.mark.parametrize("name", ["", "a b", "../etc", "x" * 64, "a\n", "\u202eevil"])
def test_a_wrong_name_costs_no_use(tokens, register, name):
    token = tokens.make(NOW, valid=DAY)
    with pytest.raises(RefusedError, match="name must be letters"):
        tokens.admit(token, new_key(), name, register, NOW)
    assert tokens.admit(token, new_key(), "r1", register, NOW).name == "r1"


def test_a_damaged_register_costs_no_use(tokens, register, tmp_path):
    token = tokens.make(NOW, valid=DAY)
    (tmp_path / "robots.json").write_text("{")
    with pytest.raises(SettingsError, match=r"robots\.json"):
        tokens.admit(token, new_key(), "r1", register, NOW)
    (tmp_path / "robots.json").unlink()
    assert tokens.admit(token, new_key(), "r1", register, NOW).name == "r1"


def test_killed_between_counting_and_admitting_a_use_is_lost_and_none_is_won(
    tokens, register, monkeypatch
):
    token = tokens.make(NOW, valid=DAY)

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Register, "add", die)
        with pytest.raises(KeyboardInterrupt):
            tokens.admit(token, new_key(), "r1", register, NOW)
    with pytest.raises(RefusedError, match="used up"):
        tokens.admit(token, new_key(), "r2", register, NOW)


def test_tokens_that_admit_nobody_go_when_one_is_made(tokens):
    tokens.make(NOW, valid=DAY)
    tokens.make(NOW + 2 * DAY, valid=DAY)
    assert len(tokens.all()) == 1


def test_a_damaged_file_admits_nobody(tokens, register, tmp_path):
    token = tokens.make(NOW, valid=DAY)
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(SettingsError, match="remove it, which revokes every token"):
        tokens.admit(token, new_key(), "r1", register, NOW)
