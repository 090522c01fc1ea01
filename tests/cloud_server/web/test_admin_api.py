"""The operator's routes of a real server process over TLS."""

import json
import time

import pytest

from cloud_server.cli.admin_client import AdminClient
from cloud_server.runs.schedule import ScheduleFile
from fleet_model.errors import RoundError


@pytest.fixture
def client(running_server):
    client = AdminClient(running_server.server_dir)
    yield client
    ScheduleFile(running_server.server_dir.schedule).clear()


def ended(client, run_id):
    end = time.monotonic() + 240
    while (run := client.run(run_id))["state"] not in ("finished", "failed", "stopped"):
        assert time.monotonic() < end
        time.sleep(0.05)
    return run


def test_a_run_without_robots_fails_with_the_reason_and_is_listed(client):
    run = ended(client, client.start_run(2)["id"])

    assert run["state"] == "failed"
    assert "0 robots online" in run["error"]
    assert run["id"] in {one["id"] for one in client.runs()}
    json.dumps(run, allow_nan=False)


def test_an_evaluation_without_robots_fails_with_the_reason_and_is_listed(client):
    run = ended(client, client.evaluate(1, ["r1"])["id"])
    assert (run["kind"], run["first_version"], run["state"]) == ("evaluate", 1, "failed")
    assert (run["robots"], run["measured"]) == (["r1"], None)
    assert "0 robots online" in run["error"]
    with pytest.raises(RoundError, match="no checkpoint 99; those of versions 1 are kept"):
        client.evaluate(99)


def test_a_fleet_without_a_language_model_is_asked_for_no_profile(client):
    with pytest.raises(RoundError, match="not by the workload 'image-classifier'"):
        client.ask_for_profiles()


def test_a_run_that_failed_can_be_resumed_and_one_that_ended_cannot_be_stopped(client):
    run = ended(client, client.start_run(1)["id"])

    with pytest.raises(RoundError, match=r"^run \S+ has ended already"):
        client.stop_run(run["id"])
    assert client.resume_run(run["id"])["id"] == run["id"]
    assert ended(client, run["id"])["state"] == "failed"


@pytest.mark.parametrize("call", ["stop_run", "resume_run", "run"])
def test_a_run_that_nobody_knows_is_said_to_be_so(client, call):
    with pytest.raises(RoundError, match="there is no run"):
        getattr(client, call)("20010101-000000")


def test_a_run_with_a_period_sets_the_schedule(client, running_server):
    run = client.start_run(2, every_s=3600.0)

    schedule = ScheduleFile(running_server.server_dir.schedule).load()
    assert (schedule.rounds, schedule.every_s) == (2, 3600.0)
    assert run["scheduled"]
    ended(client, run["id"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"every_s": 1.0},
        {"every_s": 3600.0, "continuous": True},
        {"every_s": -1},
        {"every_s": 3600.0, "closed_form": "ridge"},
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(client, wrong, running_server):
    with pytest.raises(RoundError, match="422"):
        client.start_run(2, **wrong)
    assert ScheduleFile(running_server.server_dir.schedule).load() is None
