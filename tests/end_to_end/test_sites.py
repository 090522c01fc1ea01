"""Two sites that teach opposites: each has a model, a killed server goes on.

At hall-1 two pairs of robots do not agree, either: each pair gets a model of its own.

Real server over TLS, real links. What robots send is scripted: half of the way from what they were
sent to a number, so what a round makes tells what each robot started from.
"""

import json

import numpy as np
import pytest

from cloud_server.sites.site_models import site_models
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

STARTS = {  # robot -> the model that it has from the second round on
    "r1": "hall-1/1", "r2": "hall-1/1", "r3": "hall-2", "r4": "hall-2",
    "r5": "hall-1/2", "r6": "hall-1/2",
}  # fmt: skip
SITES = {robot: start.partition("/")[0] for robot, start in STARTS.items()}
NUMBERS = {"hall-1/1": 0.1, "hall-1/2": 0.5, "hall-2": -0.3}
BEHAVIORS = {robot: f"towards:{NUMBERS[start]}" for robot, start in STARTS.items()}
ON = {
    "FLEETLEARN_SITES__ENABLED": "true",
    "FLEETLEARN_SITES__NUM_CLUSTERS": "2",
    "FLEETLEARN_CHECKS__MAX_NORM_RATIO": "0",
}


@pytest.fixture(scope="module")
def run(fleet):
    """Two rounds; the server is killed when the first has its checkpoint and no more."""
    fleet.init()
    fleet.environment = ON
    fleet.start_server(exports=False, dies=("checkpoint+", 1))
    fleet.start_scripted("robots", BEHAVIORS, SITES)
    fleet.wait("all robots", lambda: fleet.online() == set(SITES))
    started = fleet.admin().start_run(2)
    server = fleet.processes.pop("server")
    assert server.wait(240) == -9
    assert not (fleet.server / "history.jsonl").exists()
    fleet.start_server(exports=False)

    def ended():
        found = fleet.admin().run(started["id"])
        return found if found["state"] not in ("waiting", "running", "publishing") else None

    fleet.wait("the end of the run", ended)
    return ended()


def expected(start, rounds):
    """Return the models of clusters, of sites, and the fleet's, after rounds: decision 34."""
    models = dict.fromkeys(NUMBERS, start.astype(np.float64))
    fleet = hall = start
    for _ in range(rounds):
        own = {name: (models[name] + number) / 2 for name, number in NUMBERS.items()}
        hall = (own["hall-1/1"] + own["hall-1/2"]) / 2
        fleet = (2 * hall + own["hall-2"]) / 3
        # two sites are one cluster: near = 0.7 own + 0.3 mean, next = 0.8 near + 0.2 mean; and
        # clusters inside a site move as it does
        models = {name: 0.56 * one + 0.44 * fleet for name, one in own.items()}
        hall = 0.56 * hall + 0.44 * fleet
    return models, {"hall-1": hall, "hall-2": models["hall-2"]}, fleet


@pytest.mark.parametrize("rounds", [1, 2])
def test_each_site_and_cluster_goes_on_from_its_own_model_and_the_fleet_has_the_mean(
    run, fleet, rounds
):
    checkpoints = Checkpoints(ServerDirectory(fleet.server).checkpoints)
    start, made = checkpoints.load(0), checkpoints.load(rounds)

    assert (run["state"], run["rounds_closed"]) == ("finished", 2)
    models = site_models(made)
    starts, clusters = models.starts(), models.clusters_of_robots()
    assert [sorted(one.robots) for one in clusters["hall-1"].clusters] == [
        ["r1", "r2"],
        ["r5", "r6"],
    ]
    assert clusters["hall-2"].clusters == ()
    for name, tensor in start.weights.items():
        parts, sites, mean = expected(tensor, rounds)
        np.testing.assert_allclose(made.weights[name], mean, atol=1e-6)
        for site, model in sites.items():
            np.testing.assert_allclose(starts[site][name], model, atol=1e-6)
        for n, weights in enumerate(clusters["hall-1"].starts(starts["hall-1"]), 1):
            np.testing.assert_allclose(weights[name], parts[f"hall-1/{n}"], atol=1e-6)
        assert not np.allclose(starts["hall-1"][name], starts["hall-2"][name], atol=0.01)


def test_people_are_told_of_the_clusters(run, fleet):
    assert [record["clusters"] for record in run["closed"]] == [{"hall-1": 1, "hall-2": 1}] * 2
    status = fleet.type("cloud-server", "status", fleet.server).stdout
    assert "models of sites, in 1 cluster: hall-1, hall-2" in status
    assert "robots of site hall-1, in 2 clusters: r1, r2 | r5, r6" in status
    folder = fleet.server / "runs" / run["id"] / "sites"
    assert sorted(file.name for file in folder.iterdir()) == [
        f"round-00000{number}.{kind}" for number in (1, 2) for kind in ("json", "png")
    ]
    told = json.loads((folder / "round-000002.json").read_text())
    assert {one["site"]: one["examples"] for one in told["sites"]} == {"hall-1": 80, "hall-2": 40}
    assert [sorted(one["robots"]) for one in told["sites"][0]["robots"]["clusters"]] == [
        ["r1", "r2"],
        ["r5", "r6"],
    ]
