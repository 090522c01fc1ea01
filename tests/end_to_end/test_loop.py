"""The whole loop with two agents as processes over TLS: bags in, a better model running."""

import json
from pathlib import Path

import numpy as np
import pytest

from cloud_server.state.checkpoints import Checkpoints
from fleet_model.weights import size_bytes

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]


@pytest.fixture(scope="module")
def trained(fleet):
    """Two robots that train, one that only follows; two rounds; the published version."""
    fleet.environment = {"FLEETLEARN_GATE__PUBLISH": "checked"}  # as without a setting
    fleet.init()
    fleet.start_server()
    for robot in ("hall-1/r1", "hall-2/r1"):
        fleet.add_robot(robot.replace("/", "-"), "--examples", fleet.bag(robot), site="hall")
    fleet.add_robot("watcher", "--no-train", site="dock")
    names = ("hall-1-r1", "hall-2-r1", "watcher")
    fleet.wait("version 0", lambda: all(fleet.status(n).get("active_version") == 0 for n in names))
    run = fleet.train(rounds=2)
    fleet.wait("version 2", lambda: all(fleet.status(n)["active_version"] == 2 for n in names))
    return run


def test_two_rounds_close_and_version_2_is_published(fleet, trained):
    assert trained["state"] == "finished"
    assert trained["published_version"] == 2
    outcomes = [r["outcome"] for record in trained["closed"] for r in record["robots"]]
    assert outcomes == ["accepted"] * 4


def test_the_training_loss_of_every_robot_falls_from_round_to_round(fleet, trained):
    first, last = (
        {r["name"]: r["metrics"]["train_loss"] for r in record["robots"]}
        for record in trained["closed"]
    )
    assert all(last[name] < first[name] for name in first)


def test_the_site_in_the_history_is_the_servers_word(fleet, trained):
    assert {r["site"] for record in trained["closed"] for r in record["robots"]} == {"hall"}


def test_a_checkpoint_is_the_weighted_mean_of_what_the_robots_sent(fleet, trained):
    checkpoints = Checkpoints(fleet.server / "checkpoints")
    assert checkpoints.versions() == [0, 1, 2]
    before, after = checkpoints.load(1), checkpoints.load(2)
    moved = np.abs(after.weights["head/kernel"] - before.weights["head/kernel"]).max()
    assert 0 < moved < 10
    assert size_bytes(after.weights) <= 60_000


def test_an_update_and_a_publish_are_small(fleet, trained):
    for name in ("hall-1-r1", "hall-2-r1"):
        status = fleet.status(name)
        assert all(0 < record["bytes_up"] <= 60_000 for record in status["rounds"])
        assert 0 < status["publishes"][-1]["bytes_down"] <= 200_000


def test_no_agent_has_loaded_tensorflow(fleet, trained):
    for name in ("hall-1-r1", "hall-2-r1", "watcher"):
        assert fleet.status(name)["framework_loaded"] is False
        assert "tensorflow" not in Path(f"/proc/{fleet.processes[name].pid}/maps").read_text()


def test_predict_runs_the_active_model_on_a_bag(fleet, trained, tmp_path):
    bag = fleet.bag("hall-3/r1", frames=20)
    config = fleet.root / "robots" / "watcher" / "agent.toml"
    picture, annotated = tmp_path / "confusion.png", tmp_path / "annotated"
    done = fleet.type(
        "edge-agent", "predict", bag, "--config", config, "--json", "--annotate", annotated,
        "--confusion", picture, "--label-topic", "/camera/label",
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["summary"]["model_version"] == 2
    assert answer["summary"]["frames"] == len(answer["predictions"]) == 20
    assert picture.stat().st_size > 1000
    assert len(list(annotated.rglob("*.jpg"))) == 20


def test_predict_prints_csv_that_a_spreadsheet_reads(fleet, trained):
    config = fleet.root / "robots" / "watcher" / "agent.toml"
    bag = fleet.root / "bags" / "hall-1" / "r1"
    lines = fleet.type("edge-agent", "predict", bag, "--config", config).stdout.splitlines()
    assert lines[0] == "file,topic,stamp_ns,label,score,truth"
    assert len(lines) == 61


def test_int8_predicts_from_the_same_bundle(fleet, trained):
    version = fleet.type("cloud-server", "models", "list", fleet.server, "--json").stdout
    assert set(json.loads(version)["versions"][-1]["engines"]) == {"fp32", "int8"}


def test_status_shows_who_runs_what(fleet, trained):
    """A robot runs a version before its next poll tells the server so."""

    def running():
        answer = fleet.type("cloud-server", "status", fleet.server, "--json").stdout
        return {r["name"]: r["active_version"] for r in json.loads(answer)["robots"]}

    wanted = {"hall-1-r1": 2, "hall-2-r1": 2, "watcher": 2}
    fleet.wait("the polls that tell it", lambda: running() == wanted)


def test_an_unknown_robot_is_refused_with_the_reason_on_both_sides(fleet, trained):
    directory = fleet.root / "robots" / "stranger"
    fleet.type("edge-agent", "enroll", fleet.server / "kit", "--dir", directory)
    fleet.start("stranger", "-m", "edge_agent.cli", "run", "--config", directory / "agent.toml")
    fleet.wait("the refusal", lambda: fleet.status("stranger").get("state") == "refused")
    assert "unknown robot key SHA256:" in fleet.status("stranger")["reason"]
    assert "cloud-server robots add" in fleet.status("stranger")["reason"]
    assert "refused a robot: unknown robot key SHA256:" in fleet.log("server")
    assert fleet.stop("stranger") == 0


def test_a_tampered_bundle_is_refused_and_the_active_model_stays(fleet, trained):
    config = fleet.root / "robots" / "watcher" / "agent.toml"
    head = fleet.root / "robots" / "watcher" / "state" / "models" / "current" / "head.tflite"
    content = head.read_bytes()
    head.unlink()  # a hard link: the object itself stays whole
    head.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    bag = fleet.root / "bags" / "hall-1" / "r1"
    done = fleet.type("edge-agent", "predict", bag, "--config", config, exit_code=3)
    assert "head.tflite" in done.stderr
    assert "sha256" in done.stderr
    head.write_bytes(content)


def test_a_tampered_object_on_the_server_never_becomes_active(fleet, trained):
    store = fleet.server / "store"
    manifest = json.loads((store / "versions" / "000002.json").read_text())
    target = store / "objects" / manifest["files"]["head.tflite"]["sha256"]
    content = target.read_bytes()
    target.write_bytes(content[:100] + bytes([content[100] ^ 255]) + content[101:])
    try:
        fleet.add_robot("late", "--no-train", site="dock")
        fleet.wait("the refusal", lambda: "the newest model is not installed" in fleet.log("late"))
        assert fleet.status("late")["active_version"] is None
    finally:
        target.write_bytes(content)
    fleet.wait("the repaired version", lambda: fleet.status("late").get("active_version") == 2)


def test_everything_ends_cleanly_on_sigterm(fleet, trained):
    codes = {name: fleet.stop(name) for name in list(fleet.processes)}
    assert set(codes.values()) == {0}
