"""Runs that the gate judges: the real loop, checkpoints, store and log; robots are scripted."""

import time

import numpy as np
import pytest
from measuring_robots import SETTINGS, Fleet, finished, publish

from cloud_server.models.release_log import ReleaseLog
from cloud_server.runs import lifecycle
from cloud_server.runs.runs import Runs
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.offers.rollout_files import RolloutFiles, begun
from fleet_model.protocol.rollout import Named, Plan
from fleet_model.types import EVALUATE

VERSIONS = ("present", "next", "fallback")


@pytest.fixture
def fleet():
    return Fleet()


@pytest.fixture(autouse=True)
def export(monkeypatch):
    """Replace the export, which needs TensorFlow; the rest of publishing is real."""
    monkeypatch.setattr(lifecycle, "publish", publish)


@pytest.fixture
def train(server_dir, fleet):
    """Train with what robots measure of versions; return the run that has ended."""

    def go(rounds, accuracy, settings=SETTINGS):
        fleet.accuracy |= accuracy
        runs = Runs(server_dir, settings, fleet)
        return finished(runs.start(rounds))

    return go


def log_of(server_dir):
    return [(one.version, one.kind, one.of) for one in ReleaseLog(server_dir.releases).all()]


def offered(server_dir):
    return DirectoryStore(server_dir.store).channels()["stable"]


def test_robots_measure_what_is_published_and_the_first_round_what_they_run(
    train, fleet, server_dir
):
    run = train(2, {1: 0.5, 2: 0.7, 3: 0.9})
    assert fleet.requests == [("train", 1), ("train", 2), ("evaluate", 3)]
    assert (run.published_version, offered(server_dir)) == (3, 3)
    assert (run.release.kind, run.release.by) == ("published", f"run {run.id}")
    assert (run.release.before, run.release.after) == ({"accuracy": 0.5}, {"accuracy": 0.9})
    assert (run.release.examples, run.release.warnings) == (120, ())


def test_a_first_model_of_few_examples_is_published_with_a_warning(train, fleet):
    fleet.examples = 3
    run = train(1, {2: 0.8})
    assert run.published_version == 2
    (line,) = run.release.sentences()
    assert line.startswith("WARNING: version 2: it was measured with 6 held-out examples")


def test_a_run_that_makes_it_worse_is_withheld_and_says_why_and_the_command(
    train, server_dir, fleet
):
    train(1, {2: 0.9})
    run = train(1, {3: 0.8})
    assert (run.published_version, offered(server_dir)) == (None, 2)
    assert [one.kind for one in run.release.reasons] == ["fall"]
    (line,) = run.release.sentences()
    assert "version 3 is NOT PUBLISHED" in line
    assert "accuracy 0.900 -> 0.800" in line
    assert line.endswith("`cloud-server models publish DIR 3`")


def test_what_a_run_makes_while_a_rollout_goes_on_there_is_withheld(train, server_dir, fleet):
    """It would take the place of what robots get in groups."""
    named = {n: Named(version=v, sha256="a" * 64) for n, v in zip(VERSIONS, (1, 7, 8), strict=True)}
    plan = Plan(channel="stable", groups=("100%",), threshold=0.2, wait_s=0.0, **named)
    RolloutFiles(server_dir.store).write("stable", begun(plan, 0.0))
    run = train(1, {2: 0.9})
    assert (run.published_version, offered(server_dir)) == (None, 1)
    (reason,) = run.release.reasons
    assert reason.words == "a rollout of version 7 on channel stable is advancing"


def test_the_run_after_a_withheld_one_begins_with_what_robots_run(train, server_dir, fleet):
    train(1, {2: 0.9})
    train(1, {3: 0.2})
    run = train(1, {4: 0.9, 5: 0.95})
    checkpoints = Checkpoints(server_dir.checkpoints)
    one, bad, again = (checkpoints.load(v).weights["head/bias"] for v in (2, 3, 4))
    np.testing.assert_array_equal(again, one)
    assert (bad != one).all()
    assert fleet.requests[-2:] == [("train", 4), ("evaluate", 5)]
    assert (run.published_version, offered(server_dir)) == (5, 5)
    assert log_of(server_dir) == [
        (2, "published", None), (3, "withheld", None), (4, "returned", 2), (5, "published", None),
    ]  # fmt: skip


def test_a_stopped_run_that_is_resumed_keeps_its_own_withheld_checkpoint(train, server_dir, fleet):
    train(1, {2: 0.9})
    fleet.accuracy |= {3: 0.5, 4: 0.93}
    fleet.held = 3
    runs = Runs(server_dir, SETTINGS, fleet)
    run = runs.start(2)
    while ("train", 3) not in fleet.requests:
        time.sleep(0.01)
    runs.stop(run.id)
    while run.active:
        time.sleep(0.01)
    assert (run.state, run.release.kind, run.version) == ("stopped", "withheld", 3)
    fleet.held = None
    finished(runs.resume(run.id))
    assert (run.published_version, offered(server_dir)) == (4, 4)
    assert [kind for _, kind, _ in log_of(server_dir)] == ["published", "withheld", "published"]


def test_what_robots_run_is_measured_where_no_round_has_begun_with_it(train, server_dir, fleet):
    Checkpoints(server_dir.checkpoints).copy(1, 7)  # say, of a repair
    run = train(1, {1: 0.6, 8: 0.9})
    assert fleet.requests == [("train", 7), ("evaluate", 8), ("evaluate", 1)]
    assert run.release.before == {"accuracy": 0.6}


def test_a_model_that_nobody_could_measure_is_withheld(train, server_dir, fleet):
    everybody = fleet.robots

    def replies(tickets):
        fleet.robots = [] if any(fleet.asked[t].kind != EVALUATE for t in tickets) else everybody
        return Fleet.replies(fleet, tickets)

    fleet.replies = replies  # they are gone when the round has closed
    short = SETTINGS.rounds.model_copy(update={"wait_s": 0.0})
    run = train(1, {}, SETTINGS.model_copy(update={"rounds": short}))
    assert [one.kind for one in run.release.reasons] == ["unmeasured"]
    assert "0 robots online" in run.release.reasons[0].words
    assert offered(server_dir) == 1


def test_a_server_that_ends_while_robots_measure_goes_on_with_it(server_dir, fleet):
    fleet.accuracy |= {2: 0.9}
    fleet.measuring.clear()
    runs = Runs(server_dir, SETTINGS, fleet)
    run = runs.start(1)
    while ("evaluate", 2) not in fleet.requests:
        time.sleep(0.01)
    runs.leave()
    after = Runs(server_dir, SETTINGS, fleet)
    assert after.get(run.id).state == "publishing"
    fleet.measuring.set()
    after.go_on()
    assert finished(after.get(run.id)).published_version == 2
    assert fleet.requests.count(("train", 1)) == fleet.requests.count(("evaluate", 2)) == 1
    after.leave()


def test_without_a_gate_nobody_is_asked(train, fleet, server_dir):
    always = SETTINGS.gate.model_copy(update={"publish": "always"})
    run = train(1, {2: 0.0}, SETTINGS.model_copy(update={"gate": always}))
    assert fleet.requests == [("train", 1)]
    assert (run.release.kind, run.release.after, offered(server_dir)) == ("published", {}, 2)
