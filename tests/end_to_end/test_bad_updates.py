"""Robots that send rubbish, each in its own way: refused, told, suspended; the model stays whole.

Real server over TLS, real links; what the robots send is scripted (scripted_robots.py).
"""

import json

import numpy as np
import pytest

from cloud_server.cli.admin_client import AdminClient
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

HONEST = {"r1": "honest", "r2": "honest:40", "r3": "honest"}
BAD = {
    "r-nan": "nan",
    "r-shape": "shape",
    "r-missing": "missing",
    "r-empty": "empty",
    "r-stale": "stale",
}
WATCHED = {
    "r-inflated": "inflated", "r-huge": "huge", "r-twice": "twice", "r-replay": "replay",
}  # fmt: skip
REASONS = {
    "r-nan": "NaN",
    "r-shape": "has shape",
    "r-missing": "lacks ",
    "r-empty": "num-examples is 0",
    "r-stale": "based on version",
}
ROUNDS = 3


@pytest.fixture(scope="module")
def run(fleet):
    """One run of three rounds with all of them."""
    fleet.init()
    fleet.environment = {
        "FLEETLEARN_ROUNDS__DEADLINE_S": "240",
        "FLEETLEARN_CHECKS__SUSPEND_AFTER": "2",
    }
    fleet.start_server(exports=False)
    fleet.start_scripted("robots", {**HONEST, **BAD, **WATCHED})
    everyone = {*HONEST, *BAD, *WATCHED}
    fleet.wait("all robots", lambda: fleet.online() == everyone)
    return fleet.train(ROUNDS)


@pytest.fixture(scope="module")
def told(run, fleet):
    """Return what `cloud-server status` says after the run."""
    return fleet.type("cloud-server", "status", fleet.server).stdout


@pytest.fixture(scope="module")
def log(run, fleet):
    """Return what the server has logged by the end of the run."""
    return fleet.log("server")


def outcomes(run, robot):
    """Return what the history says of a robot, round by round; None where it was not asked."""
    rounds = [{r["name"]: r["outcome"] for r in record["robots"]} for record in run["closed"]]
    return [record.get(robot) for record in rounds]


def test_the_run_ends_with_a_published_model(run):
    assert run["state"] == "finished"
    assert run["published_version"] == ROUNDS
    assert len(run["closed"]) == ROUNDS


@pytest.mark.parametrize("robot", HONEST)
def test_honest_robots_are_accepted_in_every_round(run, robot):
    assert outcomes(run, robot) == ["accepted"] * ROUNDS


@pytest.mark.parametrize("robot", BAD)
def test_each_bad_update_is_refused_with_its_reason_and_the_second_suspends(run, robot):
    first, second, third = outcomes(run, robot)
    for outcome in (first, second):
        assert outcome.startswith("refused: ")
        assert REASONS[robot] in outcome
    assert third is None


def test_the_weights_are_the_mean_of_what_was_accepted_to_the_last_bit(run, fleet, scripted):
    checkpoints = Checkpoints(ServerDirectory(fleet.server).checkpoints)
    for record in run["closed"]:
        before, after = checkpoints.load(record["version"] - 1), checkpoints.load(record["version"])
        accepted = [r for r in record["robots"] if r["verdict"] == "accepted"]
        assert {r["name"] for r in accepted} == {*HONEST, *WATCHED}
        total = sum(r["weight"] for r in accepted)
        for name, weights in before.weights.items():
            mean = sum(
                counted(scripted.honest_weights(r["name"], before)[name], r) * r["weight"]
                for r in accepted
            )
            expected = weights + (mean / total).astype(np.float32)
            np.testing.assert_array_equal(after.weights[name], expected)


def counted(weights, record):
    """Return what of a robot's tensor is averaged, in float64: r-huge is cut to its bound."""
    if record["name"] == "r-huge":
        huge = (weights * np.float32(1000)).astype(np.float64)
        weights = (huge * (record["cut_to"] / record["norm"])).astype(np.float32)
    return weights.astype(np.float64)


def test_an_update_that_is_a_thousand_times_too_long_is_cut_and_its_robot_told(run, told, fleet):
    for record in run["closed"]:
        (robot,) = (r for r in record["robots"] if r["name"] == "r-huge")
        assert robot["verdict"] == "accepted"
        assert "accepted, but its length (L2) " in robot["outcome"]
        assert 0 < robot["cut_to"] <= robot["norm"] / 50
    assert "accepted, but not in full: r-huge (its length (L2) " in told


def test_an_inflated_example_count_weighs_no_more_than_that_of_the_others(run, told, log):
    for record in run["closed"]:
        (robot,) = (r for r in record["robots"] if r["name"] == "r-inflated")
        assert (robot["num_examples"], robot["weight"]) == (10**9, 20)
        assert robot["capped"]
        words = "1000000000 examples count as 20"
        assert f"round {record['round']}: robot r-inflated: {words}: at most" in log
    assert f"r-inflated ({words}: at most" in told


def test_a_second_answer_and_a_replayed_one_change_nothing(run, fleet, told, log):
    said = [json.loads(line) for line in fleet.log("robots").splitlines() if line[:1] == "{"]
    again = [s["event"] for s in said if s["robot"] == "r-twice" and "again" in s["event"]]
    assert again == ["answered again: refused"] * ROUNDS
    assert outcomes(run, "r-twice") == ["accepted"] * ROUNDS
    replayed = [s["event"] for s in said if s["robot"] == "r-replay" and "replayed" in s["event"]]
    assert replayed
    assert set(replayed) == {"replayed: refused"}
    assert outcomes(run, "r-replay") == ["accepted"] * ROUNDS
    assert "robot r-twice answered again; the second answer is not counted" in log
    assert f"not counted, since the server started: r-twice ({ROUNDS})" in told
    assert "robot r-replay sent the same reply again; it counts once at most" in log
    assert f"at most, since the server started: r-replay ({ROUNDS - 1})" in told


def test_status_and_log_say_who_was_refused_and_who_is_suspended(run, fleet, told, log):
    for robot, reason in REASONS.items():
        (line,) = (line for line in told.splitlines() if f"robot {robot} is suspended" in line)
        assert reason in line
        assert f"robot {robot}" in log
        assert reason in log
    robots = json.loads(fleet.type("cloud-server", "robots", "list", fleet.server, "--json").stdout)
    states = {robot["name"]: robot["state"] for robot in robots}
    assert states == {
        **dict.fromkeys((*HONEST, *WATCHED), "approved"),
        **dict.fromkeys(BAD, "suspended"),
    }


def test_a_suspended_robot_that_is_approved_again_takes_part_again(run, fleet):
    fleet.type("cloud-server", "robots", "approve", fleet.server, "r-nan")
    fleet.wait("r-nan", lambda: "r-nan" in fleet.online())
    server = AdminClient(ServerDirectory(fleet.server))
    again = server.start_run(1)["id"]
    # Nobody waits for its publishing, which takes longer than all rounds together.
    fleet.wait("the round", lambda: server.run(again)["rounds_closed"] == 1)
    again = server.run(again)
    assert outcomes(again, "r-nan")[0].startswith("refused: ")
    assert outcomes(again, "r1") == ["accepted"]
