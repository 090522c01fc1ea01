"""What a robot reports about itself, from real files."""

import base64
import json
import logging

import pytest

from edge_agent.agent.report import Reporter
from edge_agent.agent.status import Status
from edge_agent.robot.pause import pause
from edge_agent.robot.power import Power
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ReportSettings, ServerLink
from edge_agent.robot.train_when import TrainWhen
from fleet_model import __version__
from fleet_model.protocol.report import unpack_report
from fleet_model.protocol.version import FIRST_PROTOCOL, PROTOCOL

pytestmark = pytest.mark.base


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "state").mkdir()
    return AgentSettings(
        server=ServerLink(address="localhost:1"),
        state=tmp_path / "state",
        examples=ExampleSettings(paths=(tmp_path,)),
        report=ReportSettings(facts=tmp_path / "facts.json"),
    )


def reported(settings, status=None):
    return unpack_report(Reporter(settings).packed(status or Status()))


def test_a_report_holds_what_the_server_chooses_by(settings, monkeypatch):
    monkeypatch.setattr("edge_agent.agent.report.read_power", lambda: Power(81.0, False))
    pause(settings.state, "docking")
    settings.report.facts.write_text('{"docked": true, "floor": 2, "hall": "north"}')
    report = reported(settings, Status(active_version=3, examples=120))
    assert (report.model_version, report.examples, report.busy) == (3, 120, "docking")
    assert (report.battery, report.charging) == (81.0, False)
    assert (report.trainer, report.software) == ("litert", __version__)
    assert 0 < report.free_disk_mb < 1e9
    assert report.facts == {"docked": True, "floor": 2, "hall": "north"}


def test_a_robot_that_may_not_train_now_is_busy_if_it_trains_at_all(settings, tmp_path):
    gate = TrainWhen(file=tmp_path / "docked")
    settings = settings.model_copy(update={"train_when": gate})
    follows = settings.model_copy(update={"examples": ExampleSettings()})

    assert reported(settings).busy == "its gate file is not there"
    assert reported(follows).busy == ""


def test_what_is_not_known_is_left_out(settings, monkeypatch):
    monkeypatch.setattr("edge_agent.agent.report.read_power", Power)
    settings = settings.model_copy(update={"state": settings.state / "not yet"})
    report = reported(settings)
    assert report.model_dump(exclude_none=True) == {
        "busy": "", "trainer": "litert", "software": __version__, "not_installed": "",
        "models_site": "", "facts": {},
    }  # fmt: skip


def test_why_the_newest_model_is_not_installed_travels_without_paths(settings):
    status = Status(
        not_installed="manifest.json: /var/lib/x/y is full;\nupdate the agent " + "x" * 900
    )
    text = Reporter(settings).packed(status, PROTOCOL)
    reason = unpack_report(text).not_installed
    assert reason.startswith(r"manifest.json: <path> is full;\nupdate the agent xxx")
    assert len(reason) == 200


def test_a_server_of_the_first_protocol_gets_no_field_that_it_would_refuse(settings):
    text = Reporter(settings).packed(
        Status(not_installed="the disk is full", trial={"version": 3, "state": "confirmed"}),
        FIRST_PROTOCOL,
    )
    fields = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    assert fields.keys() <= {
        "model_version", "busy", "battery", "charging", "free_disk_mb", "examples", "trainer",
        "software", "facts",
    }  # fmt: skip


def test_a_robot_that_only_follows_models_has_no_trainer(settings):
    settings = settings.model_copy(update={"examples": ExampleSettings()})
    assert reported(settings).trainer == ""


def test_facts_are_read_at_each_look(settings):
    reporter = Reporter(settings)
    for floor in (1, 2):
        settings.report.facts.write_text(json.dumps({"floor": floor}))
        assert unpack_report(reporter.packed(Status())).facts == {"floor": floor}
    settings.report.facts.unlink()
    assert unpack_report(reporter.packed(Status())).facts == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "expected a JSON object"),
        (b"\xff", "expected a JSON object"),
        (b"[1]", "is ignored: facts: "),
        (b'{"Floor": 2}', "is ignored: facts.Floor"),
        (b'{"floor": [2]}', "is ignored: facts.floor"),
        (b'{"path": "/home/bob"}', "is ignored: facts.path"),
        (b'{"floor": NaN}', "is ignored: facts.floor"),
        (b"[" * 9000, "expected a JSON object"),
        (b'{"a": "' + b"x" * 20_000 + b'"}', "expected a JSON object"),
        (
            json.dumps({f"f{i}": 10**15 + i for i in range(17)}).encode(),
            "is ignored: ",
        ),
        (
            json.dumps({f"a_rather_long_name_of_a_fact_{i}": "é" * 60 for i in range(16)}).encode(),
            "is not sent: report: ",
        ),
    ],
)
def test_wrong_facts_are_left_out_and_logged_once(settings, caplog, content, reason):
    settings.report.facts.write_bytes(content)
    reporter = Reporter(settings)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            report = unpack_report(reporter.packed(Status(examples=7)))
            assert (report.facts, report.examples) == ({}, 7)
    (record,) = caplog.records
    assert "facts.json" in record.getMessage()
    assert reason in record.getMessage()
    assert len(record.getMessage()) < 500


def test_facts_that_cannot_be_opened_are_left_out(settings, caplog):
    settings.report.facts.mkdir()
    assert reported(settings).facts == {}
    assert "is ignored" in caplog.text
