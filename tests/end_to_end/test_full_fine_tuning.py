"""Robots with local TensorFlow fine-tune the last block; one without it says what it lacks."""

import pytest

from fleet_model.bundle import parse_trainer

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
KERAS = {"EDGE_AGENT_TRAINING__TRAINER": "keras"}


def test_two_keras_robots_fine_tune_the_last_block_and_a_litert_robot_says_what_it_lacks(fleet):
    fleet.everywhere = fleet.without_trials
    fleet.init("--trainable", "last-block")
    spec = parse_trainer((fleet.server / "model" / "trainer.json").read_bytes())
    assert list(spec.parts) == ["keras"]
    fleet.start_server()
    for robot in ("hall-1/r1", "hall-2/r1"):
        name = robot.replace("/", "-")
        config = fleet.add_robot(name, "--examples", fleet.bag(robot, frames=30), run=False)
        fleet.start(name, "-m", "edge_agent.cli", "run", "--config", config, environment=KERAS)
    fleet.add_robot("lite", "--examples", fleet.bag("hall-1/r2", frames=30))
    fleet.wait("all online", lambda: fleet.online() == {"hall-1-r1", "hall-2-r1", "lite"})

    run = fleet.train(rounds=1)

    (record,) = run["closed"]
    outcomes = {r["name"]: r["outcome"] for r in record["robots"]}
    assert outcomes["hall-1-r1"] == outcomes["hall-2-r1"] == "accepted"
    assert "cannot be trained with 'litert'" in outcomes["lite"]
    fleet.wait("version 1", lambda: fleet.status("lite").get("active_version") == 1)
    assert fleet.status("hall-1-r1")["framework_loaded"] is True
    assert fleet.status("lite")["framework_loaded"] is False
