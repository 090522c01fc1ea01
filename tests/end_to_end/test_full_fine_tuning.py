"""Robots with and without local TensorFlow fine-tune the last block together."""

import pytest

from fleet_model.bundle import parse_trainer

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
KERAS = {"EDGE_AGENT_TRAINING__TRAINER": "keras"}


def test_a_keras_robot_and_a_litert_robot_fine_tune_the_last_block(fleet):
    fleet.everywhere = fleet.without_trials
    # A busy machine may take minutes to load TensorFlow in the robot.
    fleet.environment = {"FLEETLEARN_ROUNDS__DEADLINE_S": "900"}
    fleet.init("--trainable", "last-block")
    spec = parse_trainer((fleet.server / "model" / "trainer.json").read_bytes())
    assert set(spec.parts) == {"keras", "litert"}
    fleet.start_server()
    config = fleet.add_robot("keras", "--examples", fleet.bag("hall-1/r1", frames=30), run=False)
    fleet.start("keras", "-m", "edge_agent.cli", "run", "--config", config, environment=KERAS)
    fleet.add_robot("lite", "--examples", fleet.bag("hall-2/r1", frames=30))
    fleet.wait("both online", lambda: fleet.online() == {"keras", "lite"})

    run = fleet.train(rounds=1)

    (record,) = run["closed"]
    assert {r["name"]: r["outcome"] for r in record["robots"]} == {
        "keras": "accepted",
        "lite": "accepted",
    }
    fleet.wait("version 1", lambda: fleet.status("lite").get("active_version") == 1)
    assert fleet.status("keras")["framework_loaded"] is True
    assert fleet.status("lite")["framework_loaded"] is False
