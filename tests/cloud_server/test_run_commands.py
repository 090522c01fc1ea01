"""Commands over runs as a person types them, with a real server and without one."""

import json

import pytest
from typer.testing import CliRunner

from cloud_server.cli import app
from cloud_server.run_store import Run, RunStore
from cloud_server.schedule import Schedule, ScheduleFile
from fleet_model.errors import ConnectionFailed, RoundError, SettingsError


def typed(*command):
    return CliRunner().invoke(app, [str(part) for part in command])


def out(*command):
    done = typed(*command)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_a_run_that_cannot_begin_is_followed_to_its_end_and_told(running_server):
    done = typed("train", running_server.place.root, "--rounds", "2", "--json")

    assert isinstance(done.exception, RoundError)
    assert "0 robots online" in str(done.exception)
    assert json.loads(done.stdout)["state"] == "failed"


def test_a_detached_run_returns_at_once_and_is_listed_and_shown(running_server):
    root = running_server.place.root
    run = json.loads(out("train", root, "--detach", "--json"))

    listed = json.loads(out("runs", "list", root, "--json"))

    assert run["id"] in {one["id"] for one in listed}
    assert run["id"] in out("runs", "show", root, run["id"])
    assert json.loads(out("runs", "show", root, run["id"], "--json"))["id"] == run["id"]


def test_runs_are_listed_without_a_server(server_place):
    run = Run(id="20260101-000000", rounds=3, started_at=1.0, state="failed", error="why")
    RunStore(server_place.runs).save(run)

    assert "20260101-000000" in out("runs", "list", server_place.root)
    (listed,) = json.loads(out("runs", "list", server_place.root, "--json"))
    assert (listed["id"], listed["error"]) == ("20260101-000000", "why")


def test_stopping_needs_a_server(server_place):
    done = typed("runs", "stop", server_place.root, "20260101-000000")

    assert isinstance(done.exception, ConnectionFailed)
    assert "is it running?" in str(done.exception)


def test_the_schedule_is_shown_and_cleared_without_a_server(server_place):
    root = server_place.root
    assert "no schedule" in out("schedule", "show", root)
    assert json.loads(out("schedule", "show", root, "--json")) is None

    ScheduleFile(server_place.schedule).save(Schedule(rounds=3, every_s=86400.0, set_at=4e9))

    assert "3 rounds every 1d; the next run is due 2096-10-02" in out("schedule", "show", root)
    assert json.loads(out("schedule", "show", root, "--json"))["due_at"] == 4e9
    typed("schedule", "clear", root)
    assert "no schedule" in out("schedule", "show", root)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--every", "24h", "--continuous"), "choose one"),
        (("--every", "5"), "30m, 24h or 7d"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_begins(
    server_place, options, words
):
    done = typed("train", server_place.root, *options)

    assert isinstance(done.exception, SettingsError)
    assert words in str(done.exception)


def test_a_folder_that_is_no_server_directory_is_told(tmp_path):
    for command in (("runs", "list"), ("schedule", "show"), ("schedule", "clear"), ("train",)):
        done = typed(*command, tmp_path)
        assert isinstance(done.exception, SettingsError), command
        assert "not a server directory" in str(done.exception)
