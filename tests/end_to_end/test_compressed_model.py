"""A compressed classifier comes to a robot that learns the fleet's own, with real processes."""

import json

import pytest
from colored_pictures import COLORS, SIDE, write_checkpoint, write_pictures

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
RECIPE = """
[data]
folder = "data"
[[step]]
do = "prune"
share = 0.5
learning_rate = 0.01
[[step]]
do = "quantize"
"""


def test_a_robot_tries_it_and_runs_it_and_nobody_trains_it(fleet):
    fleet.everywhere = {"EDGE_AGENT_INSTALL__PROBATION_S": "0", "EDGE_AGENT_INSTALL__SLOWER": "50"}
    fleet.environment = {"FLEETLEARN_TRAINING__EPOCHS": "1", "FLEETLEARN_ROUNDS__QUORUM": "1"}
    fleet.type(
        "cloud-server", "init", fleet.server, "--labels", ",".join(COLORS), "--port", fleet.port
    )
    fleet.start_server()
    data = write_pictures(fleet.root / "data")
    fleet.add_robot("r1", "--examples", data)
    fleet.wait("version 0", lambda: fleet.status("r1").get("active_version") == 0)
    write_checkpoint(fleet.root / "teacher.keras", fleet.root / "state")
    (fleet.root / "small.toml").write_text(RECIPE)
    done = fleet.type(
        "cloud-server", "compress", fleet.root / "teacher.keras", "--pipeline",
        fleet.root / "small.toml", "--out", fleet.root / "out", "--work", fleet.root / "work",
        "--max-drop", 0.1, "--publish", fleet.server, "--json",
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert (told["picked"], told["version"], told["size"]) == ("int8", 1, SIDE)
    fleet.wait("the compressed one", lambda: fleet.status("r1").get("active_version") == 1)
    trial = fleet.status("r1")["trial"]
    assert trial["measure"] == "accuracy"
    assert trial["after"] > 0.9 > trial["before"]
    status = fleet.type("edge-agent", "status", "--config", fleet.root / "robots/r1/agent.toml")
    assert "the imported int8 of teacher.keras (" in status.stdout
    seen = fleet.type(
        "edge-agent", "predict", data, "--config", fleet.root / "robots/r1/agent.toml", "--json"
    )
    assert json.loads(seen.stdout)["summary"]["measures"]["accuracy"] > 0.9
    run = fleet.type("cloud-server", "train", fleet.server, "--rounds", 1, exit_code=16)
    assert "they run version 1, which is int8 of teacher.keras (" in run.stderr
    assert fleet.admin().status()["last_round"]["robots"][0]["outcome"] == "accepted"
    assert fleet.status("r1")["active_version"] == 1
