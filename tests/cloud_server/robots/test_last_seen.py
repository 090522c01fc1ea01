import json
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots import last_seen
from cloud_server.robots.last_seen import MAX_WAITING, WAITING_S, WRITE_S, LastSeen
from cloud_server.robots.register import Register
from fleet_model.durable import write_durably
from fleet_model.protocol.proof import public_line
from fleet_model.protocol.report import RobotReport


def new_line():
    return public_line(ec.generate_private_key(ec.SECP384R1()).public_key())


class Hand:
    """A clock that is moved by hand."""

    now_s = 1_000_000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "seen.json"


@pytest.fixture
def robots(tmp_path):
    register = Register(tmp_path / "robots.json")
    for name in ("r1", "r2"):
        register.add(name, "hall", new_line())
    return register.robots()


@pytest.fixture
def seen(path, hand):
    return LastSeen(path, hand)


def test_a_robot_that_never_asked_was_never_seen(seen):
    assert seen.of("r1") is None
    assert seen.last_seen_s("r1") is None
    assert seen.report("r1") is None


def test_the_last_look_and_its_report_are_kept(seen, hand):
    report = RobotReport(battery=40)
    seen.looked("r1", 3, report)
    hand.now_s += 5
    seen.see("r1")  # a file is fetched: nothing new is reported
    hand.now_s += 2

    assert seen.last_seen_s("r1") == 2.0
    assert seen.report("r1") == report
    assert seen.of("r1").active_version == 3


def test_a_robot_that_no_longer_reports_counts_as_reporting_nothing(seen):
    seen.looked("r1", 3, RobotReport(battery=40))
    seen.looked("r1", None, None)

    assert seen.report("r1") is None
    assert seen.of("r1").active_version is None


def test_the_version_of_the_report_is_the_version_that_is_shown(seen):
    seen.looked("r1", None, RobotReport(model_version=9))

    assert seen.of("r1").active_version == 9


def test_a_restart_forgets_nothing_that_was_written(seen, path, hand, robots):
    stranger = new_line()
    seen.looked("r1", 3, RobotReport(battery=40, facts={"docked": True, "floor": 2}))
    seen.wait(stranger)
    seen.save(robots)
    hand.now_s += 60

    again = LastSeen(path, hand)

    assert again.last_seen_s("r1") == 60.0
    assert again.report("r1") == seen.report("r1")
    assert [one.key for one in again.waiting()] == [stranger]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_is_written_when_due_and_only_if_something_changed(seen, path, hand, robots):
    seen.see("r1")
    seen.save_if_due(robots)
    assert not path.exists()

    hand.now_s += WRITE_S
    seen.save_if_due(robots)
    assert json.loads(path.read_text())["robots"].keys() == {"r1"}

    path.unlink()
    hand.now_s += WRITE_S
    seen.save_if_due(robots)
    assert not path.exists()


def test_it_is_written_at_once_when_a_robot_becomes_busy_or_free(seen, path, hand):
    seen.looked("r1", 3, RobotReport(battery=40))
    assert not path.exists()

    for busy in ("paused", ""):
        seen.looked("r1", 3, RobotReport(battery=41, busy=busy))
        assert LastSeen(path, hand).report("r1").busy == busy

    path.unlink()
    seen.looked("r1", 3, RobotReport(battery=42))  # the rest waits until it is due
    assert not path.exists()


def test_robots_that_become_busy_together_share_a_writing(seen, path, hand, monkeypatch):
    looks = 20
    writings, may_write = [], threading.Event()

    def slowly(*arguments, **options):
        may_write.wait(240)
        writings.append(arguments)
        write_durably(*arguments, **options)

    monkeypatch.setattr(last_seen, "write_durably", slowly)
    with ThreadPoolExecutor(looks) as threads:
        for number in range(looks):
            threads.submit(seen.looked, f"r{number}", None, RobotReport(busy="paused"))
        while any(seen.of(f"r{number}") is None for number in range(looks)):
            time.sleep(0.001)
        may_write.set()

    assert len(writings) <= 2
    again = LastSeen(path, hand)
    assert all(again.report(f"r{number}").busy == "paused" for number in range(looks))


def test_a_clock_that_is_set_back_neither_stops_the_writing_nor_makes_ages_negative(
    seen, path, hand, robots
):
    seen.see("r1")
    hand.now_s -= 86_400
    seen.save_if_due(robots)

    assert path.exists()
    assert seen.last_seen_s("r1") == 0.0


def test_a_robot_that_left_the_register_is_forgotten_at_the_next_writing(seen, robots):
    seen.see("r1")
    seen.see("gone")

    seen.save(robots)

    assert seen.of("gone") is None
    assert seen.of("r1") is not None


def test_unknown_keys_are_listed_newest_first_without_those_admitted_since(seen):
    first, second, third = (new_line() for _ in range(3))
    for line in (first, second, third, first):
        seen.wait(line)

    assert [one.key for one in seen.waiting([third])] == [first, second]
    one = seen.waiting()[0]
    assert one.admit == f"cloud-server robots add DIR NAME --site SITE --key '{first}'"
    assert one.fingerprint.startswith("SHA256:")


def test_a_key_that_has_not_asked_for_a_day_waits_no_more(seen, hand):
    seen.wait(new_line())
    hand.now_s += WAITING_S + 1

    assert seen.waiting() == []


def test_strangers_cannot_fill_the_memory(seen):
    key = new_line()
    for number in range(MAX_WAITING + 50):
        seen.wait(f"{key}{number}")
        seen.wait(key)  # who keeps asking is not pushed out

    keys = [one.key for one in seen.waiting()]
    assert len(keys) == MAX_WAITING
    assert keys[0] == key


@pytest.mark.parametrize("content", ["", "{", "[]", '{"robots": {"r1": {}}}', '{"waiting": 3}'])
def test_a_damaged_file_costs_the_memory_and_nothing_else(path, hand, robots, caplog, content):
    path.write_text(content)

    seen = LastSeen(path, hand)
    seen.see("r1")
    seen.save(robots)

    assert "seen.json: not readable" in caplog.text
    assert LastSeen(path, hand).last_seen_s("r1") == 0.0


def test_a_disk_that_refuses_does_not_refuse_robots(tmp_path, hand, robots, caplog):
    seen = LastSeen(tmp_path / "robots.json" / "seen.json", hand)
    seen.see("r1")

    seen.save(robots)

    assert "cannot be written" in caplog.text
    assert seen.last_seen_s("r1") == 0.0


def test_a_robot_that_has_named_the_server_is_known_for_it_after_a_crash(seen, path, robots):
    r1, r2 = robots
    assert not seen.has_named_server(r1)

    seen.names_server(r1)  # and the process is killed

    after = LastSeen(path)
    assert (after.has_named_server(r1), after.has_named_server(r2)) == (True, False)


def test_another_key_under_the_same_name_and_an_approved_robot_begin_again(seen, robots, tmp_path):
    r1, _ = robots
    seen.names_server(r1)

    assert not seen.has_named_server(r1.model_copy(update={"key": new_line()}))
    assert not seen.has_named_server(Register(tmp_path / "robots.json").approve("r1"))
