import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.offenses import Conduct
from cloud_server.robots.register import Register
from cloud_server.state.round_record import ACCEPTED, NO_REPLY, RobotRecord, RoundRecord
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import public_line
from fleet_model.protocol.report import Standing, pack_standing, unpack_standing

BAD = "refused: head/kernel is not finite"


def new_line():
    return public_line(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.fixture
def register(tmp_path):
    register = Register(tmp_path / "robots.json")
    register.add("r1", "hall-1", new_line())
    register.add("r2", "hall-2", new_line())
    return register


@pytest.fixture
def path(tmp_path):
    return tmp_path / "conduct.json"


@pytest.fixture
def conduct(path, register):
    return Conduct(path, register, suspend_after=3)


def closed(number, **outcomes):
    """Return the record of a round in which each robot had that outcome."""
    return RoundRecord(
        run="run",
        round=number,
        version=number + 1,
        seconds=1.0,
        robots=tuple(
            RobotRecord(name=name, site="hall", outcome=outcome)
            for name, outcome in outcomes.items()
        ),
        metrics={},
    )


def test_a_robot_in_no_round_is_in_good_standing(conduct, register):
    robot = register.by_name("r1")

    assert conduct.standing(robot) == Standing()
    assert (conduct.offenses(robot), conduct.verdict(robot)) == (0, "")


def test_a_refused_update_is_told_to_its_robot_and_to_nobody_else(conduct, register):
    conduct.record(closed(1, r1=BAD, r2=ACCEPTED))

    standing = conduct.standing(register.by_name("r1"))
    assert standing == Standing(notice=f"run run round 1: {BAD}", notice_id="run/1")
    assert unpack_standing(pack_standing(standing)) == standing
    assert conduct.standing(register.by_name("r2")) == Standing()
    assert conduct.verdict(register.by_name("r2")) == "run run round 1: accepted"


def test_refused_updates_in_a_row_suspend_with_the_reason(conduct, register):
    for number in (1, 2):
        conduct.record(closed(number, r1=BAD, r2=ACCEPTED))
    assert register.by_name("r1").state == "approved"

    conduct.record(closed(3, r1=BAD, r2=ACCEPTED))

    robot = register.by_name("r1")
    reason = f"3 refused updates in a row, the last: run run round 3: {BAD}"
    assert (robot.state, robot.reason) == ("suspended", reason)
    assert conduct.standing(robot).reason == reason
    assert register.by_name("r2").state == "approved"


def test_an_accepted_update_ends_the_row(conduct, register):
    for number, outcome in enumerate([BAD, BAD, ACCEPTED, BAD, BAD]):
        conduct.record(closed(number, r1=outcome))

    assert register.by_name("r1").state == "approved"
    assert conduct.offenses(register.by_name("r1")) == 2


@pytest.mark.parametrize("outcome", [NO_REPLY, "busy: paused", "disk full"])
def test_a_round_without_an_update_is_no_offense_and_no_pardon(conduct, register, outcome):
    conduct.record(closed(1, r1=BAD))
    conduct.record(closed(2, r1=outcome))

    robot = register.by_name("r1")
    assert conduct.offenses(robot) == 1
    assert conduct.verdict(robot) == f"run run round 2: {outcome}"
    assert conduct.standing(robot).notice == ""


def test_a_round_that_is_told_twice_counts_once_over_a_restart_too(conduct, register, path):
    conduct.record(closed(1, r1=BAD))
    conduct.record(closed(1, r1=BAD))
    Conduct(path, register, suspend_after=3).record(closed(1, r1=BAD))

    assert Conduct(path, register, suspend_after=3).offenses(register.by_name("r1")) == 1


def test_every_attempt_at_a_round_that_fails_counts(conduct, register):
    record = closed(1, r1=BAD, r2=ACCEPTED)

    for seconds in (1.0, 2.5, 0.7):
        conduct.record(replace(record, seconds=seconds))

    assert register.by_name("r1").state == "suspended"


def test_a_restart_forgets_nothing(conduct, register, path):
    conduct.record(closed(1, r1=BAD))
    conduct.record(closed(2, r1=BAD))

    again = Conduct(path, register, suspend_after=3)
    assert again.standing(register.by_name("r1")) == conduct.standing(register.by_name("r1"))
    again.record(closed(3, r1=BAD))

    assert register.by_name("r1").state == "suspended"


def test_what_another_process_has_counted_is_neither_missed_nor_overwritten(
    conduct, register, path
):
    apart = Conduct(path, register, suspend_after=3)
    conduct.record(closed(1, r1=BAD, r2=BAD))

    apart.record(closed(2, r1=BAD))

    r1, r2 = register.by_name("r1"), register.by_name("r2")
    assert [one.offenses(r1) for one in (conduct, apart)] == [2, 2]
    assert conduct.verdict(r1) == f"run run round 2: {BAD}"
    assert apart.offenses(r2) == 1
    conduct.record(closed(3, r1=BAD))
    assert register.by_name("r1").state == "suspended"


def test_two_that_count_at_once_lose_no_round(register, path):
    both = [Conduct(path, register, suspend_after=0) for _ in range(2)]

    def count(first):
        for number in range(first, 40, 2):
            both[first].record(closed(number, r1=BAD))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(count, range(2)))

    assert [one.offenses(register.by_name("r1")) for one in both] == [40, 40]


def test_a_file_that_others_damage_or_remove_costs_a_running_server_nothing(
    conduct, register, path
):
    conduct.record(closed(1, r1=BAD))
    path.write_text("{")
    assert conduct.offenses(register.by_name("r1")) == 1

    path.unlink()
    conduct.record(closed(2, r1=BAD))

    assert Conduct(path, register, suspend_after=3).offenses(register.by_name("r1")) == 2


def test_an_approval_counts_anew_at_once_and_in_the_next_round(conduct, register):
    for number in (1, 2, 3):
        conduct.record(closed(number, r1=BAD))

    robot = register.approve("r1")  # as the operator's command does, in another process

    assert conduct.standing(robot) == Standing()
    assert (conduct.offenses(robot), conduct.verdict(robot)) == (0, "")
    conduct.record(closed(4, r1=BAD))
    assert conduct.offenses(robot) == 1
    assert register.by_name("r1").state == "approved"


def test_a_robot_that_is_added_again_under_an_old_name_starts_with_nothing(conduct, register):
    conduct.record(closed(1, r1=BAD))
    register.forget("r1")

    robot = register.add("r1", "hall-1", new_line())

    assert conduct.offenses(robot) == 0
    assert conduct.standing(robot) == Standing()


def test_nobody_is_suspended_when_the_setting_is_0(path, register):
    conduct = Conduct(path, register, suspend_after=0)

    for number in range(9):
        conduct.record(closed(number, r1=BAD))

    assert register.by_name("r1").state == "approved"
    assert conduct.offenses(register.by_name("r1")) == 9


def test_the_operators_own_words_are_not_overwritten(conduct, register):
    for number in (1, 2):
        conduct.record(closed(number, r1=BAD, r2=BAD))
    register.suspend("r1", "in the workshop")
    register.revoke("r2", "stolen")

    conduct.record(closed(3, r1=BAD, r2=BAD))

    assert register.by_name("r1").reason == "in the workshop"
    assert register.by_name("r2").state == "revoked"


def test_a_robot_that_was_forgotten_in_mid_round_is_left_out(conduct, register, path):
    register.forget("r1")

    conduct.record(closed(1, r1=BAD, r2=BAD))

    assert json.loads(path.read_text())["robots"].keys() == {"r2"}


def test_a_damaged_register_fails_no_round(conduct, register, tmp_path, caplog):
    good = (tmp_path / "robots.json").read_text()
    (tmp_path / "robots.json").write_text("{")

    conduct.record(closed(1, r1=BAD))

    assert "round 1 is not counted for anybody" in caplog.text
    (tmp_path / "robots.json").write_text(good)
    conduct.record(closed(1, r1=BAD))  # told again, as after a crash
    assert conduct.offenses(register.by_name("r1")) == 1


def test_a_full_disk_fails_no_round(tmp_path, register, caplog):
    conduct = Conduct(tmp_path / "robots.json" / "conduct.json", register, suspend_after=2)

    for number in (1, 2):
        conduct.record(closed(number, r1=BAD))

    assert "cannot be written" in caplog.text
    assert register.by_name("r1").state == "suspended"


@pytest.mark.parametrize("content", ["", "{", '{"robots": 3}'])
def test_a_damaged_file_costs_the_counts_and_nothing_else(path, register, caplog, content):
    path.write_text(content)

    conduct = Conduct(path, register, suspend_after=3)
    conduct.record(closed(1, r1=BAD))

    assert "conduct.json: not readable" in caplog.text
    assert Conduct(path, register, suspend_after=3).offenses(register.by_name("r1")) == 1


def test_words_of_a_robot_reach_register_and_header_without_control_characters(conduct, register):
    outcome = "refused: \x1b[2J\r\n" + "ü" * 500
    for number in (1, 2, 3):
        conduct.record(closed(number, r1=outcome))

    robot = register.by_name("r1")
    assert robot.state == "suspended"
    assert robot.reason.isprintable()
    assert len(robot.reason) == 300
    header = pack_standing(conduct.standing(robot))
    assert header.isascii()
    assert unpack_standing(header) == conduct.standing(robot)


def test_a_round_of_a_thousand_robots_is_counted_in_one_writing(conduct, register, path):
    record = closed(1, **{f"r{number}": BAD for number in range(1000)})

    conduct.record(record)
    conduct.record(replace(record, round=2))

    assert json.loads(path.read_text())["robots"].keys() == {"r1", "r2"}


def test_pending_and_suspended_robots_are_told_the_way_back(conduct, register):
    pending = register.add("r3", "hall-1", new_line(), pending=True)
    suspended = register.suspend("r1", "in the workshop")

    assert conduct.standing(pending) == Standing(
        state="pending", reason="waits for the operator: cloud-server robots approve DIR r3"
    )
    assert conduct.standing(suspended) == Standing(state="suspended", reason="in the workshop")


def test_a_revoked_robot_has_no_standing(conduct, register):
    with pytest.raises(SettingsError, match="robot r1 is revoked"):
        conduct.standing(register.revoke("r1", "stolen"))
