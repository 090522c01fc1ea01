"""What a run says of its privacy, with a real server over TLS and real agents."""

import json
import re

import pytest

from cloud_server.privacy.account import FILE, epsilon, read_ledger

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
NOISE, DELTA = 2.0, 1e-5


@pytest.fixture
def private(new_fleet):
    def make(mode):
        fleet = new_fleet()
        fleet.init()
        fleet.environment = {
            "FLEETLEARN_PRIVACY__MODE": mode,
            "FLEETLEARN_PRIVACY__NOISE_MULTIPLIER": str(NOISE),
        }
        fleet.start_server(exports=False)
        return fleet

    return make


def test_a_central_run_prints_epsilon_of_each_round_and_status_and_runs_show_do(private):
    fleet = private("central")
    fleet.start_scripted("both", {"r1": "honest", "r2": "honest"})
    fleet.wait("both", lambda: fleet.online() == {"r1", "r2"})
    done = fleet.type("cloud-server", "train", fleet.server, "--rounds", 2)
    spent = read_ledger(fleet.server / FILE)
    (run,) = {one.run for one in spent}
    assert [one.rounds for one in spent] == [{"r1": 2, "r2": 2}]
    words = f"private (central): epsilon {epsilon(spent, DELTA):.4g} in this run"
    assert words in done.stdout
    assert len(re.findall(r"private \(central\): epsilon", done.stdout)) >= 2
    assert words in fleet.type("cloud-server", "runs", "show", fleet.server).stdout
    assert words in "\n".join(fleet.admin().status()["words"])
    (told, last) = (json.loads(line)["privacy"] for line in _history(fleet))
    assert told["epsilon"] < last["epsilon"] == last["epsilon_of_all_runs"]
    again = fleet.train(1)
    assert again["id"] != run
    last = json.loads(_history(fleet)[-1])["privacy"]
    assert last["epsilon"] == told["epsilon"]
    assert last["epsilon_of_all_runs"] > last["epsilon"]


def test_in_a_local_run_the_robots_add_the_noise(private):
    fleet = private("local")
    for name in ("r1", "r2"):
        fleet.add_robot(name, "--examples", fleet.bag(f"hall-1/{name}"))
    fleet.wait("both", lambda: fleet.online() == {"r1", "r2"})
    (record,) = fleet.train(1)["closed"]
    assert record["privacy"]["mode"] == "local"
    numbers = None
    for robot in record["robots"]:
        assert robot["metrics"]["private_noise"] == NOISE  # clip is 1
        # Of n numbers with noise of deviation 2 the length is near 2 sqrt(n), whatever was learned.
        assert robot["norm"] > 20
        numbers = numbers or robot["norm"]
        assert robot["norm"] == pytest.approx(numbers, rel=0.1)
    assert [one.rounds for one in read_ledger(fleet.server / FILE)] == [{"r1": 1, "r2": 1}]


def _history(fleet):
    return (fleet.server / "history.jsonl").read_text().splitlines()
