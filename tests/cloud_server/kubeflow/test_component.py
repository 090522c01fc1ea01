"""What kfp calls a good component, and we do not; without kfp."""

import json

import pytest

from cloud_server.kubeflow import component, stages
from cloud_server.kubeflow.options import FleetOptions, fleet_options
from fleet_model.errors import RoundError, SettingsError

GIVEN = {
    "prepare": (),
    "clients": ("prepare",),
    "rounds": ("prepare", "clients"),
    "profiles": ("prepare", "rounds"),
    "publish": ("rounds", "profiles"),
}


class Logged(dict):
    """Stands for kfp's Metrics."""

    log_metric = dict.__setitem__


@pytest.fixture
def do(tmp_path, monkeypatch):
    """Return do(stage, replaced) -> what is logged; what fails leaves a note."""
    monkeypatch.setenv(component.NOTES, str(tmp_path))

    def call(stage, replaced):
        monkeypatch.setattr(stages, stage, replaced)
        given = {}
        for name in GIVEN[stage]:
            (tmp_path / f"of-{name}").mkdir()
            (tmp_path / f"of-{name}" / stages.LAST[name]).write_text("{}")
            given[name] = str(tmp_path / f"of-{name}")
        logged = Logged()
        more = {"data": "d", "model": "m"} if stage == "prepare" else {}
        component.do(stage, "{}", str(tmp_path / "into"), logged, given, **more)
        return logged

    call.note = lambda stage: json.loads((tmp_path / stage).read_text())
    call.into = tmp_path / "into"
    return call


def writing(stage, into, measures):
    """Return a stage that writes its last file and has measured this."""

    def replaced(*_):
        (into / stages.LAST[stage]).write_text("{}")
        return (measures, "key") if stage == "prepare" else measures

    return replaced


@pytest.mark.parametrize("stage", GIVEN)
def test_a_number_that_is_none_ends_a_component_with_its_name(do, stage, capsys):
    with pytest.raises(SystemExit) as ended:
        do(stage, writing(stage, do.into, {"loss": float("nan")}))
    assert ended.value.code == 11
    line = capsys.readouterr().err
    assert line.startswith(f"ERROR: component {stage}: its loss is nan")
    assert len(line.splitlines()) == 1
    assert do.note(stage)["error"] == "TrainingError"


@pytest.mark.parametrize("stage", GIVEN)
def test_an_output_that_is_missing_ends_a_component_with_its_name(do, stage, capsys):
    with pytest.raises(SystemExit) as ended:
        do(stage, lambda *_: ({}, "key") if stage == "prepare" else {})
    assert ended.value.code == 10
    assert f"component {stage} has ended without its output: expected" in capsys.readouterr().err


@pytest.mark.parametrize("stage", GIVEN)
def test_whatever_goes_wrong_in_a_component_is_one_line(do, stage, capsys):
    def broken(*_):
        raise ValueError("two\nlines")

    with pytest.raises(SystemExit) as ended:
        do(stage, broken)
    assert ended.value.code == 11
    assert capsys.readouterr().err == f"ERROR: component {stage}: ValueError: two lines\n"


def test_an_input_that_is_missing_is_told_of_the_component_before(tmp_path, capsys):
    (tmp_path / "prepared").mkdir()
    with pytest.raises(SystemExit) as ended:
        component.do("clients", "{}", str(tmp_path / "into"), Logged(), {"prepare": str(tmp_path)})
    assert ended.value.code == RoundError.exit_code
    assert "component prepare has ended without its output" in capsys.readouterr().err


def test_what_is_measured_is_logged_where_all_is_well(do):
    assert do("publish", writing("publish", do.into, {"version": 3})) == {"version": 3}
    assert do.note("publish") == {}


def test_another_workload_is_refused_by_its_name():
    with pytest.raises(SettingsError, match="--workload vision-language: the Kubeflow pipeline"):
        fleet_options(workload="vision-language")
    with pytest.raises(SettingsError, match="--rounds 0: "):
        fleet_options(rounds=0)
    assert fleet_options() == FleetOptions()
