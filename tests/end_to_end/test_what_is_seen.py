"""What an operator sees of two rounds with good, bad and slow robots: every view tells the same."""

import csv
import io
import json
import ssl
import subprocess
import sys
from types import ModuleType

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloud_server.state.directory import ServerDirectory

# TensorBoard then reads files by itself, without loading TensorFlow for it.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

ROBOTS = {"r1": "honest", "r2": "honest", "r-nan": "nan"}


@pytest.fixture(scope="module")
def open_round(fleet):
    """Two rounds; what `status --json` said while the first was open."""
    fleet.init()
    fleet.environment = {"FLEETLEARN_LOG__FORMAT": "json", "FLEETLEARN_LOG__TENSORBOARD": "true"}
    fleet.start_server(exports=False)
    seen_it = fleet.root / "seen-it"
    fleet.start_scripted("robots", {**ROBOTS, "r-slow": f"held:{seen_it}"})
    fleet.wait("all robots", lambda: fleet.online() == {*ROBOTS, "r-slow"})
    command = [sys.executable, "-m", "cloud_server.cli", "train", fleet.server, "--rounds", "2"]
    with (fleet.root / "train.txt").open("wb") as told:
        train = subprocess.Popen(list(map(str, command)), stdout=told)
    seen = []

    def waits_for_the_slow_one():
        seen.append(status(fleet))
        now = seen[-1]["open_round"]
        return now is not None and now["answered"] == 3

    fleet.wait("the open round", waits_for_the_slow_one)
    seen_it.touch()
    assert train.wait(200) == 0
    return seen[-1]


def status(fleet):
    return json.loads(fleet.type("cloud-server", "status", fleet.server, "--json").stdout)


@pytest.fixture(scope="module")
def metrics(open_round, fleet):
    """What Prometheus would store after the run: (name, first label) -> value."""
    server_dir = ServerDirectory(fleet.server)
    context = ssl.create_default_context(cafile=str(server_dir.certificates / "ca.crt"))
    token = {"authorization": f"Bearer {server_dir.admin_token.read_text().strip()}"}
    url = f"https://127.0.0.1:{fleet.port}/metrics"
    text = httpx.get(url, headers=token, verify=context, timeout=240).text
    return {
        (sample.name, *list(sample.labels.values())[:1]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_status_tells_how_the_open_round_goes(open_round):
    now = open_round["open_round"]

    assert (now["round"], now["asked"], now["answered"], now["good"]) == (1, 4, 3, 2)
    assert 0 < now["seconds_left"] <= 240
    assert open_round["words"][0].startswith(
        f"run {now['run']} round 1: 4 robots asked, 3 answered"
    )


def test_train_names_who_is_missing_in_a_round_and_status_for_whom_it_waits(open_round, fleet):
    assert open_round["open_round"]["whom"] == "r-slow"
    lines = (fleet.root / "train.txt").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines if line.startswith("round ")] == [
        "round 1: 3/4 robots",
        "round 2: 3/4 robots",
    ]
    missing = [line for line in lines if line.startswith("without ")]
    assert len(missing) == 2
    for line in missing:  # whichever of its tensors is looked at first
        assert line.startswith("without r-nan (refused: the update: head/")


def test_status_tells_afterwards_who_was_accepted_and_why_one_was_not(open_round, fleet):
    words = status(fleet)["words"]

    assert "round 2 closed in" in words[0]
    assert "accepted r-slow, r1, r2" in words[0]
    (refused,) = (line for line in words if line.startswith("robot r-nan: refused: "))
    assert "NaN" in refused
    assert any("robot r-nan: 2 refused updates in a row" in line for line in words)


def test_prometheus_counts_the_same(metrics):
    assert metrics["fleetlearn_rounds_total",] == 2
    assert metrics["fleetlearn_round_seconds_count",] == 2
    assert metrics["fleetlearn_updates_total", "accepted"] == 6
    assert metrics["fleetlearn_updates_total", "refused"] == 2
    assert metrics["fleetlearn_robots_online",] == 4
    assert metrics["fleetlearn_robot_refused_in_a_row", "r-nan"] == 2
    assert metrics["fleetlearn_run_state", "finished"] == 1
    assert metrics["fleetlearn_published_version", "stable"] == 2
    assert ("fleetlearn_open_round_asked",) not in metrics


def test_tensorboard_draws_the_same(open_round, fleet):
    run = open_round["open_round"]["run"]
    reader = accumulator.EventAccumulator(str(fleet.server / "tensorboard" / run))
    reader.Reload()

    assert [(p.step, p.value) for p in reader.Scalars("robots/accepted")] == [(1, 3), (2, 3)]
    assert [(p.step, p.value) for p in reader.Scalars("held_out/loss_after")] == [
        (1, 0.5),
        (2, 0.5),
    ]


def test_the_history_holds_the_same(open_round, fleet):
    out = fleet.type("cloud-server", "history", fleet.server, "--csv").stdout

    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 8
    assert [r["robot"] for r in rows if r["verdict"] == "refused"] == ["r-nan", "r-nan"]


def test_every_line_of_the_log_is_an_object_and_rounds_can_be_found_by_their_run(open_round, fleet):
    lines = [json.loads(line) for line in fleet.log("server").splitlines()]

    run = open_round["open_round"]["run"]
    mine = [line for line in lines if line.get("run") == run]
    assert {line.get("round") for line in mine} >= {1, 2}
    assert any(line.get("robot") == "r-nan" and "NaN" in line["message"] for line in mine)
    assert all(line["level"] in ("info", "warning", "error") for line in lines)
