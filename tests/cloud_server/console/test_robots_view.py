"""What is said of robots, by value."""

import pytest

from cloud_server.console.desk import part_of
from cloud_server.console.robots_view import (
    Judged,
    chosen,
    clock_of,
    health_of,
    judged,
    numbers,
    robot_row,
    sites_of,
)
from cloud_server.monitoring.fleet_status import FleetStatus
from cloud_server.monitoring.robot_status import RobotStatus
from cloud_server.monitoring.totals import HistoryTotals
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.protocol.outcome import ACCEPTED, Outcome


def robot(name="r1", **fields):
    usual = {
        "name": name, "site": "hall", "state": "approved", "reason": "", "labels": (),
        "fingerprint": "SHA256:x", "online": True, "last_seen_s": 3.0, "active_version": 7,
        "offenses": 0, "verdict": "", "report": {},
    }  # fmt: skip
    return RobotStatus(**(usual | fields))


def told(name="r1", outcome=ACCEPTED, **metrics):
    return RobotRecord(name=name, site="hall", outcome=outcome, metrics=metrics)


def status(*robots, last=(), **fields):
    totals = HistoryTotals()
    if last:
        record = RoundRecord(
            run="a", round=1, version=8, seconds=1.0, robots=tuple(last), metrics={},
            clusters={"hall": 2},
        )  # fmt: skip
        totals.add(record)
    usual = {
        "waiting": [], "runs": [], "channels": {"stable": 7}, "open_round": None, "totals": totals,
    }  # fmt: skip
    return FleetStatus(robots=list(robots), **(usual | fields))


@pytest.mark.parametrize(
    ("fields", "last", "health"),
    [
        ({}, None, ("well", "good")),
        ({"state": "revoked", "refusal": "x"}, None, ("revoked", "away")),
        ({"state": "suspended"}, None, ("suspended", "bad")),
        ({"state": "pending"}, None, ("waits for approval", "waits")),
        ({"refusal": "its clock is 400 s behind the server's"}, None, ("refused", "bad")),
        ({"online": False, "last_seen_s": 91.0}, None, ("offline", "away")),
        ({"offenses": 2}, None, ("updates refused", "bad")),
        ({}, told(outcome=Outcome("failed", "no frames")), ("failed last time", "bad")),
        ({"report": {"trial": {"state": "back"}}}, None, ("keeps an older model", "waits")),
        ({"report": {"busy": "a mission"}}, None, ("busy", "waits")),
    ],
)
def test_the_health_of_a_robot_is_what_a_person_has_to_mend_first(fields, last, health):
    assert health_of(robot(**fields), last) == health


def test_the_cells_of_a_robot():
    report = {"free_disk_mb": 12_345, "not_installed": "it has no space"}
    last = told(left_out_unknown_label=3.0, held_out=20.0)
    row = robot_row(robot(report=report, labels=("arm", "new")), last)
    assert (row.seen, row.version, row.disk, row.clock) == ("3 s ago", "7", "12.3 GB", "right")
    assert row.skipped.startswith("3 ")
    assert row.labels == "arm, new"
    assert robot_row(robot(report=report), None).skipped == "it has no space"
    late = Outcome("refused", "its norm is 41")
    assert robot_row(robot(), told(outcome=late)).skipped == "refused: its norm is 41"


def test_a_clock_is_wrong_where_a_proof_was_refused_for_its_time():
    assert clock_of(robot()) == "right"
    assert clock_of(robot(refusal="its clock is 400 s ahead of the server's")) == "wrong"
    assert clock_of(robot(last_seen_s=None)) == "-"


def test_a_filter_looks_into_names_sites_and_labels():
    all_of = judged(
        status(
            robot("r1", labels=("Arm",)),
            robot("r2", site="dock"),
            robot("r3", state="pending"),
            robot("r4", online=False, last_seen_s=None),
        )
    )

    def names(*asked):
        return [one.robot.name for one in chosen(all_of, *asked)]

    assert names("", "", "") == ["r1", "r2", "r3", "r4"]
    assert names("arm", "", "") == ["r1"]
    assert names("DOCK", "", "") == ["r2"]
    assert names("", "dock", "") == ["r2"]
    assert names("", "", "attention") == ["r3"]
    assert names("", "", "offline") == ["r4"]
    assert names("", "", "online") == ["r1", "r2", "r3"]
    assert names("", "", "of no such name") == ["r1", "r2", "r3", "r4"]


def test_the_numbers_above_the_table():
    now = status(robot("r1"), robot("r2", state="suspended", active_version=6))
    assert [one[:2] for one in numbers(now, judged(now))] == [
        ("Robots", "2"), ("Need attention", "1"), ("Newest version", "7"), ("Run", "idle"),
    ]  # fmt: skip
    assert numbers(now, judged(now))[2][2] == "1 robots run it"


def test_a_site_has_its_robots_its_cluster_and_its_own_version():
    now = status(
        robot("r1"), robot("r2", site="dock", active_version=None),
        last=[told(held_out=20.0)], assigned={"stable/sites/dock": 9},
    )  # fmt: skip
    dock, hall = sites_of(now)
    assert (dock["site"], dock["version"], dock["cluster"], dock["runs"]) == (
        "dock", 9, None, "none (1)",
    )  # fmt: skip
    assert (hall["cluster"], hall["accepted"], hall["held_out"]) == (2, "1 of 1", 20)


def test_pages_of_rows_are_bounded_whatever_is_asked():
    rows = list(range(101))
    assert part_of(rows, "3").rows == [100]
    assert part_of(rows, "99").number == 3
    for nonsense in ("", "-1", "0", "x", "1e9", "²"):
        assert part_of(rows, nonsense).number == 1
    assert part_of([], "1").of == 1


def test_a_row_is_made_of_what_was_judged():
    one = Judged(robot(), None, "well", "good")
    assert one.row.health == "well"
