import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.monitoring.robot_status import robot_statuses, waiting_keys
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.offenses import Offenses
from cloud_server.robots.register import Register
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.protocol.outcome import Outcome
from fleet_model.protocol.proof import public_line
from fleet_model.protocol.report import RobotReport


def new_line():
    return public_line(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.fixture
def register(tmp_path):
    return Register(tmp_path / "robots.json")


@pytest.fixture
def seen(tmp_path):
    return LastSeen(tmp_path / "seen.json", lambda: 1000.0)


@pytest.fixture
def offenses(tmp_path, register):
    return Offenses(tmp_path / "offenses.json", register, suspend_after=2)


def test_a_robot_that_was_never_heard_of_is_shown_with_what_the_register_says(
    register, seen, offenses
):
    robot = register.add("r1", "hall", new_line(), labels=["gpu"])

    (status,) = robot_statuses(register, seen, offenses, online=())

    assert json.loads(json.dumps(status.as_json())) == {
        "name": "r1", "site": "hall", "state": "approved", "reason": "", "labels": ["gpu"],
        "fingerprint": robot.fingerprint, "online": False, "last_seen_s": None,
        "active_version": None, "offenses": 0, "verdict": "", "report": None, "refusal": "",
        "names_server": None, "protocol": None, "away": True, "warning": "",
    }  # fmt: skip


def test_everything_that_is_known_of_a_robot_stands_together(register, seen, offenses):
    register.add("r1", "hall", new_line())
    register.add("r2", "hall", new_line())
    seen.looked("r1", None, RobotReport(model_version=4, battery=20, facts={"floor": 2}))
    for number in (1, 2):
        robots = (RobotRecord(name="r1", site="hall", outcome=Outcome("refused", "too long")),)
        offenses.record(
            RoundRecord(
                run="run", round=number, version=number, seconds=1.0, robots=robots, metrics={}
            )
        )

    first, second = robot_statuses(register, seen, offenses, online={"r1"})

    assert (first.name, first.online, first.last_seen_s, first.active_version) == (
        "r1", True, 0.0, 4,
    )  # fmt: skip
    assert first.report == {"model_version": 4, "battery": 20.0, "facts": {"floor": 2}}
    assert (first.state, first.offenses) == ("suspended", 2)
    assert first.verdict == "run run round 2: refused: too long"
    assert first.reason == f"2 refused updates in a row, the last: {first.verdict}"
    assert (second.name, second.online, second.offenses) == ("r2", False, 0)


def test_an_unknown_key_is_shown_with_the_command_that_admits_it(register, seen):
    line, known = new_line(), new_line()
    register.add("r1", "hall", known)
    seen.wait(line)
    seen.wait(known)

    (one,) = waiting_keys(register, seen)

    assert (one.name, one.state, one.last_seen_s) == ("", "waiting", 0.0)
    assert one.reason == f"cloud-server robots add DIR NAME --site SITE --key '{line}'"
