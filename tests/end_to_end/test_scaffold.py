"""SCAFFOLD with real agents over TLS: what a robot keeps survives kill -9 between rounds."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]


def corrected(run):
    """Return, for each round, which robots corrected their gradients."""
    return [
        {r["name"]: r["metrics"]["control_corrected"] == 1 for r in record["robots"]}
        for record in run["closed"]
    ]


def test_robots_correct_their_gradients_from_the_second_round_on_also_after_kill_9(fleet):
    fleet.init()
    fleet.environment = {"FLEETLEARN_AGGREGATION__RULE": "scaffold"}
    fleet.start_server(exports=False)
    for name in ("r1", "r2"):
        fleet.add_robot(name, "--examples", fleet.bag(f"hall-1/{name}"))
    fleet.wait("both", lambda: fleet.online() == {"r1", "r2"})
    both = {"r1": True, "r2": True}

    assert corrected(fleet.train(2)) == [dict.fromkeys(both, False), both]

    kept = fleet.root / "robots" / "r2" / "state" / "control.safetensors"
    assert kept.exists()
    process = fleet.processes.pop("r2")
    process.kill()
    process.wait()
    fleet.run_robot("r2")
    fleet.wait("r2 again", lambda: "r2" in fleet.online())
    assert corrected(fleet.train(1)) == [both]

    # A new disk: it takes part all the same, and the other one goes on.
    process = fleet.processes.pop("r2")
    process.kill()
    process.wait()
    kept.unlink()
    fleet.run_robot("r2")
    fleet.wait("r2 again", lambda: "r2" in fleet.online())
    assert corrected(fleet.train(2)) == [{"r1": True, "r2": False}] * 2
    assert "r2 has lost its control variate: c keeps its last one" in fleet.log("server")
