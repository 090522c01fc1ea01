"""Evaluations as runs of the server: the real loop and journal, scripted robots."""

import json
import threading
import time
from dataclasses import replace

import pytest
from measuring_robots import ended

from cloud_server.flower.flower_link import FlowerRun
from cloud_server.rounds import fleet as seam
from cloud_server.rounds.round_loop import Participant, Reply
from cloud_server.runs.run_store import MAX_ROBOTS, Run, RunStore
from cloud_server.runs.runs import Runs
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.settings import RoundSettings, ServerSettings
from fleet_model.errors import RoundError
from fleet_model.protocol.version import PROTOCOL
from fleet_model.types import Update

SETTINGS = ServerSettings(rounds=RoundSettings(quorum=9, deadline_s=30.0, wait_s=0.0))


class Fleet(seam.Fleet):
    """Robots that measure accuracy .5 on two examples each, once `gate` is open."""

    def __init__(self, *names):
        self.robots = [
            Participant(node_id=n, name=name, site="hall", protocol=PROTOCOL)
            for n, name in enumerate(names)
        ]
        self.gate, self.requests, self.asked = threading.Event(), [], {}
        self.gate.set()

    def open_run(self, resume):
        return resume or FlowerRun(run_id=1, task_id=1)

    def close_run(self, *, completed):
        self.completed = completed

    def online(self):
        return self.robots

    def still_open(self, tickets):
        return set(tickets)

    def send(self, participants, request, ttl_s):
        self.requests.append(request)
        sent = {f"{robot.name}-{len(self.requests)}": robot for robot in participants}
        self.asked |= dict.fromkeys(sent, request)
        return sent

    def replies(self, tickets):
        if not self.gate.is_set():
            return []
        return [Reply(ticket=t, update=self.answer(self.asked[t])) for t in tickets]

    def answer(self, request):
        return Update(
            kind=request.kind, robot="", base_version=request.checkpoint.version, weights={},
            num_examples=2, num_steps=0, metrics={"accuracy": 0.5},
        )  # fmt: skip


@pytest.fixture
def told():
    return []


@pytest.fixture
def make(server_dir, told):
    return lambda fleet: Runs(server_dir, SETTINGS, fleet, told=[told.append])


def test_robots_measure_the_newest_checkpoint_and_nothing_else_changes(make, server_dir, told):
    before = Checkpoints(server_dir.checkpoints).saved()
    fleet = Fleet("r1", "r2")
    run = ended(make(fleet).evaluate(None))
    assert (run.state, run.error) == ("finished", "")
    assert (run.published_version, run.version) == (None, None)
    (request,) = fleet.requests
    newest = Checkpoints(server_dir.checkpoints).latest().version
    assert (request.kind, request.checkpoint.version) == ("evaluate", newest)
    assert run.measured["metrics"] == {"accuracy": 0.5}
    assert [robot["name"] for robot in run.measured["robots"]] == ["r1", "r2"]
    assert Checkpoints(server_dir.checkpoints).saved() == before
    assert not server_dir.history.exists()
    assert (told, fleet.completed) == ([], True)


def test_the_result_outlives_the_process(make, server_dir):
    run = ended(make(Fleet("r1")).evaluate(1))
    again = make(Fleet()).get(run.id)
    assert (again.kind, again.measured) == ("evaluate", run.measured)
    assert make(Fleet()).all()[-1].as_json(robots=False)["measured"]["verdicts"] == {"accepted": 1}


def test_a_process_that_ends_in_the_middle_is_followed_by_one_that_goes_on(make, server_dir):
    fleet = Fleet("r1", "r2")
    fleet.gate.clear()
    first = make(fleet)
    run = first.evaluate(1)
    while len(fleet.asked) < 2:
        time.sleep(0.01)
    first.leave()
    fleet.gate.set()
    second = make(fleet)
    second.go_on()
    again = ended(second.get(run.id))
    second.leave()
    assert (again.state, len(again.measured["robots"]), len(fleet.requests)) == ("finished", 2, 1)


def test_one_that_had_measured_is_not_asked_for_again(make, server_dir):
    run = ended(make(Fleet("r1")).evaluate(1))
    RunStore(server_dir.runs).save(run.model_copy(update={"state": "running", "ended_at": None}))
    fleet = Fleet("r1")
    runs = make(fleet)
    runs.go_on()
    again = ended(runs.get(run.id))
    runs.leave()
    assert (again.state, again.measured, fleet.requests) == ("finished", run.measured, [])


def test_only_named_robots_are_asked(make):
    run = ended(make(Fleet("r1", "r2", "r3")).evaluate(1, ["r2"]))
    assert [robot["name"] for robot in run.measured["robots"]] == ["r2"]


def test_a_version_that_is_not_kept_is_refused_with_those_that_are(make):
    with pytest.raises(RoundError, match="no checkpoint 7; those of versions 1 are kept"):
        make(Fleet("r1")).evaluate(7)


def test_robots_that_cannot_measure_fail_it_with_their_reason(make):
    fleet = Fleet("r1")
    fleet.answer = lambda request: replace(Fleet.answer(fleet, request), metrics={})
    run = ended(make(fleet).evaluate(1))
    assert (run.state, run.exit_code, run.measured) == ("failed", 10, None)
    assert "r1: refused: the evaluation has no measures" in run.error


def test_a_run_of_a_server_before_evaluations_is_one_of_training(server_dir):
    old = {"id": "20251122-000000", "rounds": 3, "started_at": 1.0, "rounds_closed": 2}
    file = server_dir.runs / old["id"] / "run.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(old))
    (run,) = RunStore(server_dir.runs).load()
    assert (run.kind, run.version, run.measured) == ("train", 2, None)
    assert Run(id="x", kind="evaluate", rounds=1, rounds_closed=1, started_at=1.0).version is None


def test_a_server_holds_no_record_of_each_of_thousands_of_robots_forever(make, server_dir):
    names = [f"r{number:03}" for number in range(MAX_ROBOTS + 1)]
    runs = make(Fleet(*names))
    run = ended(runs.evaluate(1))
    for one in (runs, make(Fleet())):  # this process and the next
        held = one.get(run.id)
        assert held.measured["verdicts"] == {"accepted": MAX_ROBOTS + 1}
        assert "robots" not in held.measured
        shown = one.shown(run.id)["measured"]
        assert [robot["name"] for robot in shown["robots"]] == names
        assert shown["metrics"] == held.measured["metrics"] == {"accuracy": 0.5}
    assert runs.shown("20000101-000000") is None
