"""What befalls honest robots: cables, power, clocks, keys. They come back and are told why.

Real server, real agents with bags of their own, over TLS.
"""

import json
import re
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

CUT_S = 30.0
DEADLINE_S = 200.0  # of rounds in which all robots come back: a busy machine must not miss it
# An agent whose clock is off by as many seconds as a file says.
SKEWED = """
import datetime, pathlib, sys
from fleet_model.protocol import proof
now = proof.utc_now
offset = pathlib.Path(sys.argv.pop(1))
proof.utc_now = lambda: now() + datetime.timedelta(seconds=float(offset.read_text()))
from edge_agent.cli import main
main()
"""


@pytest.fixture(scope="module")
def hall(fleet):
    """A server with one good robot; rounds need it and one more."""
    fleet.init()
    fleet.environment = {"FLEETLEARN_ROUNDS__DEADLINE_S": str(DEADLINE_S)}
    fleet.start_server(exports=False)
    fleet.data = fleet.bag("hall-1/r1")
    fleet.start_scripted("good", {"good-1": "honest", "good-2": "honest"})
    fleet.wait("the good robots", lambda: fleet.online() == {"good-1", "good-2"})
    return fleet


def outcomes(run):
    """Return name -> outcome for each round; how much of an accepted update counts is left out."""
    return [
        {r["name"]: r["outcome"].partition(", but ")[0] for r in record["robots"]}
        for record in run["closed"]
    ]


def words_of(fleet):
    """Return what `cloud-server status` says below its tables, without a process of its own."""
    return "\n".join(fleet.admin().status()["words"])


def start_training(fleet, rounds=1):
    """Ask for rounds without waiting; return the run's id."""
    done = fleet.type(
        "cloud-server", "train", fleet.server, "--rounds", rounds, "--detach", "--json"
    )
    return json.loads(done.stdout.splitlines()[-1])["id"]


def ended(fleet, run):
    """Wait for the end of a run and return it."""

    def now():
        return fleet.admin().run(run)

    fleet.wait(
        f"the end of run {run}",
        lambda: now()["state"] not in ("waiting", "running", "publishing"),
        patience_s=2 * DEADLINE_S,
    )
    return now()


def wait_for_the_others(fleet):
    """Wait until the operator sees that all but one of three robots have answered."""
    words = "round 1: 3 robots asked, 2 answered, 2 good updates, "
    fleet.wait("the good robots' answers", lambda: words in words_of(fleet))


def leave(fleet, name):
    """End a robot and wait until the server knows."""
    assert fleet.stop(name) == 0
    fleet.wait(f"{name} is gone", lambda: name not in fleet.online())


def test_a_network_cut_of_half_a_minute_in_mid_round_costs_nothing(hall, cut_proxy):
    proxy = cut_proxy(hall.port)
    config = hall.add_robot("far", "--examples", hall.data, run=False)
    hall.start(
        "far", "-m", "edge_agent.cli", "run", "--config", config,
        environment={"EDGE_AGENT_SERVER__ADDRESS": f"127.0.0.1:{proxy.port}"},
    )  # fmt: skip
    hall.wait("far", lambda: "far" in hall.online())
    run = start_training(hall)
    hall.wait("far trains", lambda: hall.status("far").get("state") == "training")
    server = f"127.0.0.1:{proxy.port}"
    # Whichever call was cut: one to the server's own pages, or one of Flower's.
    cut = rf"WARNING (no answer from {server} \(|[A-Z]\w+: ).*; trying again\n"
    proxy.cut()
    time.sleep(CUT_S)
    wait_for_the_others(hall)
    hall.wait("far notices", lambda: re.search(cut, hall.log("far")))
    proxy.heal()
    done = ended(hall, run)
    assert done["state"] == "finished", done
    assert outcomes(done) == [dict.fromkeys(("good-1", "good-2", "far"), "accepted")]
    back = rf"{cut}(.*\n)*.*INFO connected to {server} again"
    hall.wait("far is back", lambda: re.search(back, hall.log("far")))
    assert f"run {run} round 1 closed" in words_of(hall)
    assert ": accepted far, good-1, good-2" in words_of(hall)
    assert "round 1: robot far: update received" in hall.log("server")
    leave(hall, "far")


def test_a_robot_that_dies_in_training_comes_back_and_is_asked_again_in_the_same_round(hall):
    config = hall.add_robot("mortal", "--examples", hall.data)
    hall.wait("mortal", lambda: "mortal" in hall.online())
    run = start_training(hall, rounds=2)
    hall.wait("mortal trains", lambda: hall.status("mortal").get("state") == "training")
    process = hall.processes.pop("mortal")
    process.kill()
    process.wait()
    time.sleep(5)  # less than the minute until the server misses its heartbeats
    wait_for_the_others(hall)
    hall.start("mortal", "-m", "edge_agent.cli", "run", "--config", config)
    done = ended(hall, run)
    assert done["state"] == "finished", done
    assert outcomes(done) == [dict.fromkeys(("good-1", "good-2", "mortal"), "accepted")] * 2
    assert ": accepted good-1, good-2, mortal" in words_of(hall)
    log = hall.log("server")
    assert "robot mortal (hall) begins a session" in log  # not each time: lines are bounded
    # The killed process and the new one: each says it once, when the server has let it in.
    assert hall.log("mortal").count("the server knows this robot as mortal, site hall") == 2
    assert log.count("round 1: robot mortal: update received") == 1
    leave(hall, "mortal")


def test_a_clock_that_is_off_is_told_by_how_much_and_mends(hall, tmp_path):
    offset = tmp_path / "offset"
    offset.write_text("600")
    config = hall.add_robot("early", "--examples", hall.data, run=False)
    hall.start("early", "-c", SKEWED, offset, "run", "--config", config)
    hall.wait("the refusal", lambda: "clock" in hall.status("early").get("reason", ""))
    (ahead_s,) = re.findall(r"clock is (\d+) s ahead", hall.status("early")["reason"])
    assert 590 <= int(ahead_s) <= 609
    told = r"robot early is refused: its clock is \d+ s ahead"
    assert re.search(told, words_of(hall))
    assert re.search(r"refused a robot: robot early: its clock is \d+ s ahead", hall.log("server"))
    offset.write_text("0")
    hall.wait("early", lambda: "early" in hall.online())
    assert not re.search(told, words_of(hall))
    leave(hall, "early")


def test_an_unknown_key_is_told_what_to_do_and_takes_part_once_it_is_admitted(hall):
    directory = hall.root / "robots" / "new"
    hall.type(
        "edge-agent", "enroll", hall.server / "kit", "--dir", directory, "--examples", hall.data
    )
    hall.start("new", "-m", "edge_agent.cli", "run", "--config", directory / "agent.toml")
    hall.wait("the refusal", lambda: "unknown robot key" in hall.status("new").get("reason", ""))
    assert "cloud-server robots add" in hall.status("new")["reason"]
    assert "unknown key SHA256:" in words_of(hall)  # the operator sees who waits
    assert "refused a robot: unknown robot key SHA256:" in hall.log("server")
    hall.type("cloud-server", "robots", "add", hall.server, "new", "--key", directory / "robot.pub")
    hall.wait("new", lambda: "new" in hall.online())


def test_a_revoked_robot_is_shut_out_in_the_middle_of_a_run(hall):
    run = start_training(hall, rounds=2)
    hall.type("cloud-server", "robots", "revoke", hall.server, "new")
    hall.wait("the refusal", lambda: "revoked" in hall.status("new").get("reason", ""))
    done = ended(hall, run)
    assert done["state"] == "finished", done
    assert [r["good-1"] for r in outcomes(done)] == ["accepted", "accepted"]
    assert "new" not in outcomes(done)[1]
    assert "new" not in hall.online()
    assert "robot new is refused: it is revoked (" in words_of(hall)
    assert "refused a robot: robot new is revoked (" in hall.log("server")
    assert hall.processes["new"].poll() is None, "it goes on trying"
    assert hall.stop("new") == 0


def test_a_straggler_costs_its_round_the_deadline_and_no_more(hall):
    undisturbed_s = hall.train(1)["closed"][0]["seconds"]
    deadline_s = max(10.0, 5 * undisturbed_s)  # a busy machine needs longer
    assert hall.stop("server") == 0
    hall.environment = {"FLEETLEARN_ROUNDS__DEADLINE_S": str(deadline_s)}
    hall.start_server(exports=False)
    hall.start_scripted("snail", {"snail": "slow:3600"})
    hall.wait("all of them", lambda: hall.online() == {"good-1", "good-2", "snail"})
    run = hall.train(1)
    assert outcomes(run) == [
        {"good-1": "accepted", "good-2": "accepted", "snail": "no reply by the deadline"}
    ]
    assert run["closed"][0]["seconds"] >= deadline_s
    assert "no reply from snail" in words_of(hall)
    assert "round 1: robot snail: no reply by the deadline" in hall.log("server")


def test_no_log_has_a_traceback(hall):
    logs = {file.stem: file.read_text() for file in hall.root.glob("*.log")}
    assert {"server", "good"} <= logs.keys()
    assert [name for name, text in logs.items() if "Traceback" in text] == []
