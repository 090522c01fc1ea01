"""The report of one's own fleet: what the directory holds, and nothing that nobody measured."""

import json
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.report import fleet as fleet_module
from cloud_server.report.fleet import write_fleet_report
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.errors import SettingsError
from fleet_model.protocol.outcome import ACCEPTED, NO_REPLY
from fleet_model.protocol.proof import public_line
from fleet_model.protocol.report import RobotReport
from fleet_model.protocol.trial import TrialOutcome

EVIL = "r<b>&"


def record(version, outcomes, measure="accuracy"):
    robots = tuple(
        RobotRecord(
            name=name, site="hall", outcome=outcome, num_examples=40, num_steps=3,
            update_bytes=20_000,
            metrics={f"{measure}_before": 0.1 * version, f"{measure}_after": 0.1 * version + 0.05},
        )
        for name, outcome in outcomes.items()
    )  # fmt: skip
    means = {f"{measure}_before": 0.1 * version, f"{measure}_after": 0.1 * version + 0.05}
    return RoundRecord(
        run="20260101-000000", round=1, version=version, seconds=3.0, robots=robots, metrics=means
    )


@pytest.fixture
def page_of(server_dir, tmp_path):
    register, seen = Register(server_dir.robots), LastSeen(server_dir.seen)
    for name in ("r1", "r2", "watcher"):
        key = public_line(ec.generate_private_key(ec.SECP384R1()).public_key())
        register.add(name, "hall", key)
    seen.looked("r1", 1, RobotReport(), None)
    seen.looked("watcher", 1, RobotReport(), None)

    def write(records, trials=()):
        for name, trial in dict(trials).items():
            seen.looked(name, 1, RobotReport(trial=trial), None)
        seen.save(register.robots())
        for one in records:
            server_dir.append_history(one.as_json())
        write_fleet_report(server_dir, tmp_path / "report.html")
        return (tmp_path / "report.html").read_text()

    return write


def test_the_page_says_what_the_directory_holds(page_of):
    page = page_of(
        [
            record(2, {"r1": ACCEPTED, "r2": ACCEPTED}),
            record(3, {"r1": ACCEPTED, "r2": NO_REPLY}),
        ]
    )
    assert "Two robots trained. Two run the newest model." in page
    assert re.search(r"20%.*→.*35%", page)
    assert "before the first and after the last of 2 rounds" in page
    assert "Round 3, r2: " in page
    assert "20.0 kB" in page
    assert "circle, square, star" in page
    assert not re.search(r"<(script|link|img|iframe)|https?://|url\(", page)
    assert not re.search(r"\b(None|nan)\b", page)


def test_any_measure_of_a_workload_is_drawn(page_of):
    page = page_of([record(2, {"r1": ACCEPTED}, "iou"), record(3, {"r1": ACCEPTED}, "iou")])
    assert "Iou on the robots" in page
    assert "accuracy_before" not in page
    assert "<th>Iou before</th>" in page.replace(' scope="col"', "")
    assert "<td>0.20</td><td>0.35</td>" in page  # of r1, as decimals


def test_the_page_says_what_each_robot_made_of_a_model_and_why(page_of):
    measured = {"running": 4, "measure": "accuracy", "before": 0.91, "examples": 40}
    trials = {
        "r1": TrialOutcome(version=5, state="confirmed", after=0.95, **measured),
        "watcher": TrialOutcome(version=5, state="refused", why="worse", after=0.05, **measured),
        "r2": TrialOutcome(version=4, state="back", why="hung"),
    }
    page = page_of([record(2, {"r1": ACCEPTED})], trials)
    assert "Version 5: confirmed by 1 of 3 robots, refused by 1 of 3 robots" in page
    assert "Version 4: given back by 1 of 3 robots" in page
    rows = dict(re.findall(r'<tr><th scope="row">([^<]+)</th><td>1</td>(.*?)</tr>', page))
    assert rows == {
        "r1": "<td>confirmed</td><td>accuracy 0.950, 0.910 with 4, on 40 held-out examples</td>",
        "watcher": "<td>refused</td>"
        "<td>accuracy 0.050, 0.910 with version 4, on 40 held-out examples</td>",
        "r2": "<td>given back</td><td>it did not answer in time</td>",
    }


def test_without_trials_there_is_no_such_section(page_of):
    assert "try a model" not in page_of([record(2, {"r1": ACCEPTED})])


def test_names_from_robots_stay_text(page_of):
    page = page_of([record(2, {EVIL: ACCEPTED})])
    assert EVIL not in page
    assert "r&lt;b&gt;&amp;" in page


def test_a_long_history_shows_its_newest_rounds(page_of, monkeypatch):
    monkeypatch.setattr(fleet_module, "ROUNDS", 3)
    page = page_of([record(version, {"r1": ACCEPTED}) for version in range(2, 9)])
    assert "of 3 rounds" in page
    assert "r1, round 8" in page
    assert "r1, round 5" not in page


def test_without_a_closed_round_the_next_step_is_told(server_dir, tmp_path):
    with pytest.raises(
        SettingsError, match=f"no round has closed yet; `cloud-server train {server_dir.root}"
    ):
        write_fleet_report(server_dir, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_doubtful_scores_are_told(page_of):
    few = record(2, {"r1": ACCEPTED})
    robot = few.robots[0]
    page = page_of([few])
    told = json.dumps(few.warnings)
    assert ("Doubtful scores" in page) == bool(few.warnings)
    assert robot.name in told or not few.warnings
