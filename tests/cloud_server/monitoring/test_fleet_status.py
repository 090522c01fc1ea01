import json
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.models.release_log import Release
from cloud_server.monitoring.fleet_status import Overview
from cloud_server.monitoring.status_words import answer_of
from cloud_server.monitoring.totals import RunningTotals
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.offenses import Offenses
from cloud_server.robots.refused_answers import RefusedAnswers
from cloud_server.robots.register import Register
from cloud_server.rounds.fleet import Participant
from cloud_server.rounds.progress import RoundProgress
from cloud_server.runs.run_store import Run
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.errors import SettingsError
from fleet_model.protocol.outcome import ACCEPTED
from fleet_model.protocol.proof import public_line


class OneOnline:
    """The seam to Flower: robot r1 is connected."""

    def online(self):
        return [Participant(node_id=1, name="r1", site="hall")]


class OneRun:
    """The seam to the run's thread."""

    open_round = None

    def all(self):
        return [Run(id="a", rounds=3, state="running", started_at=1)]

    def progress(self):
        return self.open_round

    def taken_up(self):
        return {"a": 2}

    def closed_form(self):
        return None

    def release(self):
        return Release(version=3, kind="rolled_back", of=1, at=1.0, by="models rollback")


def new_line():
    return public_line(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.fixture
def runs():
    return OneRun()


@pytest.fixture
def overview(server_dir, runs):
    register, seen = Register(server_dir.robots), LastSeen(server_dir.seen)
    register.add("r1", "hall", new_line())
    register.add("r2", "hall", new_line(), pending=True)
    seen.looked("r1", 1, None)
    seen.wait(new_line())
    return Overview(
        fleet=OneOnline(),
        register=register,
        seen=seen,
        offenses=Offenses(server_dir.offenses, register, suspend_after=3),
        runs=runs,
        store=DirectoryStore(server_dir.store),
        ledger=RunningTotals(server_dir.history, server_dir.totals),
        refused=RefusedAnswers(lambda: {1: register.robots()[0]}),
    )


def test_everybody_is_asked(overview, server_dir):
    robot = RobotRecord(name="r1", site="hall", outcome=ACCEPTED)
    record = RoundRecord(run="a", round=1, version=2, seconds=3, robots=(robot,), metrics={})
    server_dir.append_history(record.as_json())

    status = overview.status()

    assert [(r.name, r.state, r.online) for r in status.robots] == [
        ("r1", "approved", True),
        ("r2", "pending", False),
    ]
    assert len(status.waiting) == 1
    assert [run.id for run in status.runs] == ["a"]
    assert status.channels == {"stable": 1}
    assert status.open_round is None
    assert status.last_round == record


def test_the_deadline_of_the_open_round_is_told_as_seconds_left(overview, runs):
    runs.open_round = RoundProgress(
        run="a",
        round=2,
        asked=3,
        answered=1,
        good=1,
        began=time.monotonic() - 50,
        deadline=time.monotonic() + 1000,
    )
    assert 900 < overview.status().open_round.seconds_left <= 1000
    assert 50 <= overview.status().open_round.seconds < 150
    runs.open_round = RoundProgress(
        run="a", round=2, asked=3, answered=1, good=1, began=0.0, deadline=0.0
    )
    assert overview.status().open_round.seconds_left == 0


def test_a_status_is_json(overview, runs):
    runs.open_round = RoundProgress(
        run="a", round=2, asked=3, answered=1, good=1, began=0.0, deadline=0.0
    )

    answer = json.loads(json.dumps(answer_of(overview.status()), allow_nan=False))

    assert answer["open_round"]["asked"] == 3
    assert answer["last_round"] is None
    # The open round, the run taken up, the rollback, r2 waits, a robot whose proofs name no
    # server, an unknown key.
    assert len(answer["words"]) == 6


def test_a_status_tells_of_closed_rounds_without_their_robots(overview, runs, monkeypatch):
    robot = RobotRecord(name="r1", site="hall", outcome=ACCEPTED)
    record = RoundRecord(run="a", round=1, version=2, seconds=3, robots=(robot,), metrics={})
    (run,) = runs.all()
    run.add(record.as_json())
    monkeypatch.setattr(runs, "all", lambda: [run])

    ((closed,),) = (told["closed"] for told in overview.status().as_json()["runs"])

    assert "robots" not in closed
    assert (closed["version"], closed["verdicts"]) == (2, {"accepted": 1})


def test_answers_that_no_round_has_seen_are_told(overview):
    for _ in range(3):
        overview.refused.add(1, "again")
    overview.refused.add(1, "late")
    for why in ("repeated", "large", "misnamed"):
        overview.refused.add(1, why)

    answer = answer_of(overview.status())

    assert (answer["answered_again"], answer["answered_late"]) == ({"r1": 3}, {"r1": 1})
    assert (answer["repeated"], answer["taken_up"]) == ({"r1": 1}, {"a": 2})
    assert (answer["release"]["version"], answer["release"]["of"]) == (3, 1)
    assert (answer["too_large"], answer["misnamed"]) == ({"r1": 1}, {"r1": 1})
    assert answer["words"][2:7] == [
        "second answers, which are not counted, since the server started: r1 (3)",
        "answers to questions that were over, since the server started: r1 (1)",
        "replies that came again, which count once at most, since the server started: r1 (1)",
        "replies that were too large, which are refused, since the server started: r1 (1)",
        "replies whose objects had false names, which are refused, since the server started: "
        "r1 (1)",
    ]


def test_a_damaged_register_is_an_error(overview, server_dir):
    server_dir.robots.write_text("{")

    with pytest.raises(SettingsError):
        overview.status()
