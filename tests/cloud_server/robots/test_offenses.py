import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.offenses import Offenses
from cloud_server.robots.register import Register
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.errors import SettingsError
from fleet_model.protocol.outcome import ACCEPTED, NO_REPLY, Outcome
from fleet_model.protocol.proof import public_line
from fleet_model.protocol.report import Standing, pack_standing, unpack_standing

RECORDED = Path(__file__).with_name("recorded")
BAD = Outcome("refused", "head/kernel is not finite")


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
    return tmp_path / "offenses.json"


@pytest.fixture
def offenses(path, register):
    return Offenses(path, register, suspend_after=3)


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


def test_a_robot_in_no_round_is_in_good_standing(offenses, register):
    robot = register.by_name("r1")

    assert offenses.standing(robot) == Standing()
    assert (offenses.in_a_row(robot), offenses.verdict(robot)) == (0, "")


def test_a_refused_update_is_told_to_its_robot_and_to_nobody_else(offenses, register):
    offenses.record(closed(1, r1=BAD, r2=ACCEPTED))

    standing = offenses.standing(register.by_name("r1"))
    assert standing == Standing(notice=f"run run round 1: {BAD.text}", notice_id="run/1")
    told = unpack_standing(pack_standing(standing))
    assert (told.notice, told.notice_id) == (standing.notice, "run/1")
    other = offenses.standing(register.by_name("r2"))
    assert other == Standing(counted_run="run", counted_version=2)
    assert offenses.verdict(register.by_name("r2")) == "run run round 1: accepted"


def test_refused_updates_in_a_row_suspend_with_the_reason(offenses, register):
    for number in (1, 2):
        offenses.record(closed(number, r1=BAD, r2=ACCEPTED))
    assert register.by_name("r1").state == "approved"

    offenses.record(closed(3, r1=BAD, r2=ACCEPTED))

    robot = register.by_name("r1")
    reason = f"3 refused updates in a row, the last: run run round 3: {BAD.text}"
    assert (robot.state, robot.reason) == ("suspended", reason)
    assert offenses.standing(robot).reason == reason
    assert register.by_name("r2").state == "approved"


def test_an_accepted_update_ends_the_row(offenses, register):
    for number, outcome in enumerate([BAD, BAD, ACCEPTED, BAD, BAD]):
        offenses.record(closed(number, r1=outcome))

    assert register.by_name("r1").state == "approved"
    assert offenses.in_a_row(register.by_name("r1")) == 2


@pytest.mark.parametrize(
    "outcome", [NO_REPLY, Outcome("busy", "paused"), Outcome("failed", "disk full")]
)
def test_a_round_without_an_update_is_no_offense_and_no_pardon(offenses, register, outcome):
    offenses.record(closed(1, r1=BAD))
    offenses.record(closed(2, r1=outcome))

    robot = register.by_name("r1")
    assert offenses.in_a_row(robot) == 1
    assert offenses.verdict(robot) == f"run run round 2: {outcome.text}"
    assert offenses.standing(robot).notice == ""


def test_a_round_that_is_told_twice_counts_once_over_a_restart_too(offenses, register, path):
    offenses.record(closed(1, r1=BAD))
    offenses.record(closed(1, r1=BAD))
    Offenses(path, register, suspend_after=3).record(closed(1, r1=BAD))

    assert Offenses(path, register, suspend_after=3).in_a_row(register.by_name("r1")) == 1


def test_every_attempt_at_a_round_that_fails_counts(offenses, register):
    record = closed(1, r1=BAD, r2=ACCEPTED)

    for seconds in (1.0, 2.5, 0.7):
        offenses.record(replace(record, seconds=seconds))

    assert register.by_name("r1").state == "suspended"


def test_a_restart_forgets_nothing(offenses, register, path):
    offenses.record(closed(1, r1=BAD))
    offenses.record(closed(2, r1=BAD))

    again = Offenses(path, register, suspend_after=3)
    assert again.standing(register.by_name("r1")) == offenses.standing(register.by_name("r1"))
    again.record(closed(3, r1=BAD))

    assert register.by_name("r1").state == "suspended"


def test_what_another_process_has_counted_is_neither_missed_nor_overwritten(
    offenses, register, path
):
    apart = Offenses(path, register, suspend_after=3)
    offenses.record(closed(1, r1=BAD, r2=BAD))

    apart.record(closed(2, r1=BAD))

    r1, r2 = register.by_name("r1"), register.by_name("r2")
    assert [one.in_a_row(r1) for one in (offenses, apart)] == [2, 2]
    assert offenses.verdict(r1) == f"run run round 2: {BAD.text}"
    assert apart.in_a_row(r2) == 1
    offenses.record(closed(3, r1=BAD))
    assert register.by_name("r1").state == "suspended"


def test_two_that_count_at_once_lose_no_round(register, path):
    both = [Offenses(path, register, suspend_after=0) for _ in range(2)]

    def count(first):
        for number in range(first, 40, 2):
            both[first].record(closed(number, r1=BAD))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(count, range(2)))

    assert [one.in_a_row(register.by_name("r1")) for one in both] == [40, 40]


def test_a_file_that_others_damage_or_remove_costs_a_running_server_nothing(
    offenses, register, path
):
    offenses.record(closed(1, r1=BAD))
    path.write_text("{")
    assert offenses.in_a_row(register.by_name("r1")) == 1

    path.unlink()
    offenses.record(closed(2, r1=BAD))

    assert Offenses(path, register, suspend_after=3).in_a_row(register.by_name("r1")) == 2


def test_an_approval_counts_anew_at_once_and_in_the_next_round(offenses, register):
    for number in (1, 2, 3):
        offenses.record(closed(number, r1=BAD))

    robot = register.approve("r1")  # as the operator's command does, in another process

    assert offenses.standing(robot) == Standing()
    assert (offenses.in_a_row(robot), offenses.verdict(robot)) == (0, "")
    offenses.record(closed(4, r1=BAD))
    assert offenses.in_a_row(robot) == 1
    assert register.by_name("r1").state == "approved"


def test_a_robot_that_is_added_again_under_an_old_name_starts_with_nothing(offenses, register):
    offenses.record(closed(1, r1=BAD))
    register.forget("r1")

    robot = register.add("r1", "hall-1", new_line())

    assert offenses.in_a_row(robot) == 0
    assert offenses.standing(robot) == Standing()


def test_nobody_is_suspended_when_the_setting_is_0(path, register):
    offenses = Offenses(path, register, suspend_after=0)

    for number in range(9):
        offenses.record(closed(number, r1=BAD))

    assert register.by_name("r1").state == "approved"
    assert offenses.in_a_row(register.by_name("r1")) == 9


def test_the_operators_own_words_are_not_overwritten(offenses, register):
    for number in (1, 2):
        offenses.record(closed(number, r1=BAD, r2=BAD))
    register.suspend("r1", "in the workshop")
    register.revoke("r2", "stolen")

    offenses.record(closed(3, r1=BAD, r2=BAD))

    assert register.by_name("r1").reason == "in the workshop"
    assert register.by_name("r2").state == "revoked"


def test_a_robot_that_was_forgotten_in_mid_round_is_left_out(offenses, register, path):
    register.forget("r1")

    offenses.record(closed(1, r1=BAD, r2=BAD))

    assert json.loads(path.read_text())["robots"].keys() == {"r2"}


def test_a_damaged_register_fails_no_round(offenses, register, tmp_path, caplog):
    good = (tmp_path / "robots.json").read_text()
    (tmp_path / "robots.json").write_text("{")

    offenses.record(closed(1, r1=BAD))

    assert "round 1 is not counted for anybody" in caplog.text
    (tmp_path / "robots.json").write_text(good)
    offenses.record(closed(1, r1=BAD))  # told again, as after a crash
    assert offenses.in_a_row(register.by_name("r1")) == 1


def test_a_full_disk_fails_no_round(tmp_path, register, caplog):
    offenses = Offenses(tmp_path / "robots.json" / "offenses.json", register, suspend_after=2)

    for number in (1, 2):
        offenses.record(closed(number, r1=BAD))

    assert "cannot be written" in caplog.text
    assert register.by_name("r1").state == "suspended"


@pytest.mark.parametrize("content", ["", "{", '{"robots": 3}'])
def test_a_damaged_file_costs_the_counts_and_nothing_else(path, register, caplog, content):
    path.write_text(content)

    offenses = Offenses(path, register, suspend_after=3)
    offenses.record(closed(1, r1=BAD))

    assert "offenses.json: not readable" in caplog.text
    assert Offenses(path, register, suspend_after=3).in_a_row(register.by_name("r1")) == 1


def test_words_of_a_robot_reach_register_and_header_without_control_characters(offenses, register):
    outcome = Outcome("refused", "\x1b[2J\r\n" + "ü" * 500)
    for number in (1, 2, 3):
        offenses.record(closed(number, r1=outcome))

    robot = register.by_name("r1")
    assert robot.state == "suspended"
    assert robot.reason.isprintable()
    assert len(robot.reason) == 300
    header = pack_standing(offenses.standing(robot))
    assert header.isascii()
    assert unpack_standing(header).reason == offenses.standing(robot).reason
    assert unpack_standing(header).notice == offenses.standing(robot).notice


def test_a_round_of_a_thousand_robots_is_counted_in_one_writing(offenses, register, path):
    record = closed(1, **{f"r{number}": BAD for number in range(1000)})

    offenses.record(record)
    offenses.record(replace(record, round=2))

    assert json.loads(path.read_text())["robots"].keys() == {"r1", "r2"}


def test_pending_and_suspended_robots_are_told_the_way_back(offenses, register):
    pending = register.add("r3", "hall-1", new_line(), pending=True)
    suspended = register.suspend("r1", "in the workshop")

    assert offenses.standing(pending) == Standing(
        state="pending", reason="waits for the operator: cloud-server robots approve DIR r3"
    )
    assert offenses.standing(suspended) == Standing(state="suspended", reason="in the workshop")


@pytest.fixture
def old_directory(tmp_path):
    """Return a folder with what commit 87262d4 has written: r2 was refused twice in a row."""
    for name in ("robots.json", "conduct.json"):
        shutil.copy(RECORDED / name, tmp_path)
    return tmp_path


def test_the_counts_of_an_older_release_are_continued_under_the_new_name(old_directory):
    register, path = Register(old_directory / "robots.json"), old_directory / "offenses.json"

    offenses = Offenses(path, register, suspend_after=3)

    assert not (old_directory / "conduct.json").exists()
    counts = {robot.name: offenses.in_a_row(robot) for robot in register.robots()}
    assert counts == {"r1": 0, "r2": 2, "r3": 0}
    assert offenses.standing(register.by_name("r2")) == Standing(
        notice="run a round 2: refused: w holds NaN or infinity, expected finite numbers",
        notice_id="a/2",
    )
    again = replace(closed(2, r2=BAD), run="a", seconds=1.5)  # told once more, after a crash
    replayed = replace(again, version=3)
    offenses.record(replayed)
    assert offenses.in_a_row(register.by_name("r2")) == 2
    offenses.record(replace(replayed, round=3, version=4))
    assert register.by_name("r2").state == "suspended"


def test_two_processes_adopt_the_counts_of_an_older_release_once(old_directory):
    register, path = Register(old_directory / "robots.json"), old_directory / "offenses.json"
    server = Offenses(path, register, suspend_after=0)
    server.record(replace(closed(3, r2=BAD), run="a"))

    apart = Offenses(path, register, suspend_after=0)
    apart.record(replace(closed(4, r2=BAD), run="a"))

    assert [one.in_a_row(register.by_name("r2")) for one in (server, apart)] == [4, 4]


def test_a_file_of_the_new_name_is_not_replaced_by_one_of_the_old_name(old_directory):
    register, path = Register(old_directory / "robots.json"), old_directory / "offenses.json"
    Offenses(path, register, suspend_after=0).record(closed(3, r1=BAD))
    shutil.copy(RECORDED / "conduct.json", old_directory)

    offenses = Offenses(path, register, suspend_after=0)

    assert offenses.in_a_row(register.by_name("r1")) == 1


def test_a_revoked_robot_has_no_standing(offenses, register):
    with pytest.raises(SettingsError, match="robot r1 is revoked"):
        offenses.standing(register.revoke("r1", "stolen"))


def test_a_robot_is_told_which_update_of_it_was_folded_in_last(offenses, register, path):
    def told():
        standing = offenses.standing(register.by_name("r1"))
        read = unpack_standing(pack_standing(standing))
        return read.counted_run, read.counted_version

    assert told() == ("", 0)
    offenses.record(closed(1, r1=ACCEPTED))
    assert told() == ("run", 2)
    offenses.record(closed(2, r1=NO_REPLY))
    offenses.record(closed(3, r1=BAD))
    assert told() == ("run", 2)
    register.suspend("r1", "by hand")
    register.approve("r1")  # offenses are counted anew
    assert told() == ("run", 2)
    assert Offenses(path, register, 3).standing(register.by_name("r1")).counted_version == 2


def test_a_round_that_failed_has_folded_nothing_in(offenses, register):
    offenses.record(closed(1, r1=ACCEPTED))
    offenses.record(replace(closed(2, r1=ACCEPTED), version=2))  # too few others: still version 2
    assert offenses.standing(register.by_name("r1")).counted_version == 2
