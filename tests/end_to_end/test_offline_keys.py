"""A run publishes on `canary`; only a person with the offline keys gives its model to `stable`."""

import json
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
WORD = "correct horse battery"
POLLS_S = 3.0  # some looks of a robot at its channel


def test_robots_on_stable_change_by_a_promotion_alone(fleet):
    fleet.everywhere = {
        "CLOUD_SERVER_PASSPHRASE": WORD,
        "FLEETLEARN_PUBLISH__CHANNEL": "canary",
        "EDGE_AGENT_POLL__IDLE_S": "0.3",
        **fleet.without_trials,
    }
    fleet.init()
    stick = fleet.root / "stick"
    fleet.type("cloud-server", "keys", "init", fleet.server, "--offline", stick)
    secrets = {file.name: file.read_bytes() for file in (fleet.server / "secrets").iterdir()}
    assert not [name for name in secrets if name.startswith(("root-", "release"))]
    away = stick.rename(fleet.root / "away")  # no command of the server finds it
    fleet.start_server()
    for name in ("trier", "keeper"):
        fleet.add_robot(name, "--examples", fleet.bag(f"hall/{name}"), run=False)
    fleet.run_robot("trier", EDGE_AGENT_SERVER__CHANNEL="canary")
    fleet.run_robot("keeper")

    def runs(name, version):
        return lambda: fleet.status(name).get("active_version") == version

    for name in ("trier", "keeper"):
        fleet.wait(f"version 0 on {name}", runs(name, 0))
    assert fleet.train(1)["published_version"] == 1
    fleet.wait("the model of the run where it is tried", runs("trier", 1))
    time.sleep(POLLS_S)  # what must not happen has had its time
    assert fleet.status("keeper")["active_version"] == 0
    assert fleet.status("keeper")["rounds"]  # it has trained all the same

    told = fleet.type("cloud-server", "models", "publish", fleet.server, 1, exit_code=3)
    assert "version 1" in told.stderr
    fleet.type("cloud-server", "models", "promote", fleet.server, 1, "--keys", stick, exit_code=2)
    fleet.type("cloud-server", "models", "promote", fleet.server, 1, "--keys", away)
    fleet.wait("the model of the run on the robot that waited", runs("keeper", 1))

    said = json.loads(fleet.type("cloud-server", "models", "list", fleet.server, "--json").stdout)
    signed = {
        (version["version"], one["channel"]): one["role"]
        for version in said["versions"]
        for one in version["signatures"]
    }
    assert signed[1, "canary"] == "online"
    assert signed[1, "stable"] == "stable"
    lines = fleet.type(
        "edge-agent", "status", "--config", fleet.root / "robots/keeper/agent.toml"
    ).stdout
    assert "channel stable" in lines
    assert "signed by 2 of 3 keys" in lines
