"""Runs with the real loop, checkpoints and history; the fleet and the export are fakes."""

import json
import threading
import time

import numpy as np
import pytest

from cloud_server import runs as runs_module
from cloud_server.checkpoints import Checkpoints
from cloud_server.rounds import Participant, Reply
from cloud_server.runs import Runs
from cloud_server.settings import RoundSettings, ServerSettings
from fleet_model.bundle import read_bundle
from fleet_model.errors import ExportError, RoundError
from fleet_model.types import Update

SETTINGS = ServerSettings(rounds=RoundSettings(quorum=1, deadline_s=5.0, wait_s=0.0))


class Grid:
    """Counts Flower runs."""

    def __init__(self):
        self.ended = []

    def open_run(self):
        self.ended.append(None)

    def close_run(self, *, completed):
        self.ended[-1] = completed


class Fleet:
    """One robot whose updates are +1; it answers when `gate` is open."""

    def __init__(self):
        self.requests = []
        self.robots = [Participant(node_id=1, name="r1", site="hall")]
        self.gate = threading.Event()
        self.gate.set()
        self.metrics = {"loss_after": 0.5, "held_out": 2.0}

    def online(self):
        return self.robots

    def send(self, participants, request, ttl_s):
        self.requests.append(request)
        return {"t": participants[0]}

    def replies(self, tickets):
        if not self.gate.is_set():
            return []
        start = self.requests[-1].checkpoint
        update = Update(
            robot="r1",
            base_version=start.version,
            weights={name: np.ones_like(w) for name, w in start.weights.items()},
            num_examples=4,
            num_steps=1,
            metrics=self.metrics,
        )
        return [Reply(ticket="t", update=update)]


@pytest.fixture
def fleet():
    return Fleet()


@pytest.fixture
def grid():
    return Grid()


@pytest.fixture
def published(monkeypatch, server_place):
    """Replace the export, which needs TensorFlow; return the checkpoints it was given."""
    given = []

    def publish(place, settings, checkpoint):
        given.append(checkpoint)
        return read_bundle(server_place.model).model_copy(update={"version": checkpoint.version})

    monkeypatch.setattr(runs_module, "publish", publish)
    return given


@pytest.fixture
def runs(server_place, fleet, grid, published):
    return Runs(server_place, SETTINGS, fleet, grid)


def finished(run):
    end = time.monotonic() + 20
    while run.active:
        assert time.monotonic() < end
        time.sleep(0.01)
    return run


def test_a_run_closes_its_rounds_and_publishes_the_last_checkpoint(
    runs, server_place, fleet, grid, published
):
    before = Checkpoints(server_place.checkpoints).latest()

    run = finished(runs.start(3))

    assert (run.state, run.exit_code, run.error, run.published_version) == ("finished", 0, "", 4)
    after = Checkpoints(server_place.checkpoints).latest()
    assert after.version == before.version + 3 == published[0].version
    np.testing.assert_allclose(after.weights["head/bias"], before.weights["head/bias"] + 3)
    assert [request.round for request in fleet.requests] == [1, 2, 3]
    assert [request.checkpoint.version for request in fleet.requests] == [1, 2, 3]
    assert {request.run for request in fleet.requests} == {run.id}
    assert grid.ended == [True]


def test_robots_are_named_the_trainer_of_the_model_directory(runs, server_place, fleet):
    finished(runs.start(1))

    manifest = read_bundle(server_place.model)
    assert fleet.requests[0].trainer == manifest.trainer.sha256
    assert fleet.requests[0].trainer_bytes == manifest.trainer.size_bytes
    assert fleet.requests[0].config.epochs == SETTINGS.training.epochs


def test_every_closed_round_is_in_the_history_and_in_the_run(runs, server_place):
    run = finished(runs.start(2))

    history = server_place.read_history()
    assert history == json.loads(json.dumps(run.closed))
    assert [(record["run"], record["round"], record["version"]) for record in history] == [
        (run.id, 1, 2),
        (run.id, 2, 3),
    ]
    assert run.seconds > 0


def test_a_second_run_is_refused_while_the_first_goes_on(runs, fleet):
    fleet.gate.clear()
    first = runs.start(1)

    with pytest.raises(RoundError, match=f"run {first.id} is going on"):
        runs.start(1)
    fleet.gate.set()
    finished(first)
    second = finished(runs.start(1))

    assert second.state == "finished"
    assert second.id != first.id
    assert runs.all() == [first, second]
    assert runs.get(first.id) is first
    assert runs.get("unknown") is None


def test_whoever_sees_a_run_ended_sees_the_rest_of_it(runs):
    run = runs.start(1)
    while run.active:
        pass

    assert run.seconds > 0
    assert run.published_version == 2


def test_a_round_that_fails_ends_the_run_with_its_exit_code(runs, fleet, grid, server_place):
    fleet.robots = []

    run = finished(runs.start(2))

    assert (run.state, run.exit_code) == ("failed", RoundError.exit_code)
    assert "0 robots online" in run.error
    assert run.published_version is None
    assert grid.ended == [False]
    assert Checkpoints(server_place.checkpoints).latest().version == 1
    assert server_place.read_history() == []


def test_a_round_that_closed_before_the_failure_is_kept_and_published(
    runs, fleet, server_place, published, monkeypatch
):
    online = fleet.online
    monkeypatch.setattr(fleet, "online", lambda: online() if not fleet.requests else [])

    run = finished(runs.start(2))

    assert run.state == "failed"
    assert Checkpoints(server_place.checkpoints).latest().version == 2
    assert len(server_place.read_history()) == 1
    assert run.published_version == published[0].version == 2


def test_an_export_that_fails_ends_the_run_with_its_exit_code(runs, monkeypatch, grid):
    def publish(place, settings, checkpoint):
        raise ExportError("the files do not match")

    monkeypatch.setattr(runs_module, "publish", publish)

    run = finished(runs.start(1))

    assert (run.state, run.exit_code) == ("failed", ExportError.exit_code)
    assert run.error == "the files do not match"
    assert grid.ended == [True]


def test_a_damaged_checkpoint_ends_the_run_before_robots_are_asked(runs, server_place, fleet):
    (Checkpoints(server_place.checkpoints).path(1)).write_bytes(b"damaged")

    run = finished(runs.start(1))

    assert run.exit_code == 8
    assert "weights.safetensors" in run.error
    assert fleet.requests == []


def test_a_bug_ends_the_run_with_a_word_and_the_next_run_can_start(runs, fleet, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(fleet, "online", lambda: 1 / 0)
        run = finished(runs.start(1))

    assert (run.state, run.exit_code) == ("failed", 1)
    assert run.error == "unexpected ZeroDivisionError; see the server's log"
    assert finished(runs.start(1)).state == "finished"


def test_an_unknown_rule_is_a_settings_error_of_the_run(server_place, fleet, grid, published):
    rounds = SETTINGS.rounds.model_copy(update={"aggregator": "fedavgg"})
    settings = SETTINGS.model_copy(update={"rounds": rounds})

    run = finished(Runs(server_place, settings, fleet, grid).start(1))

    assert run.exit_code == 2
    assert "unknown plug-in 'fedavgg'" in run.error


def test_what_the_operator_is_told_is_json(runs):
    run = finished(runs.start(1))

    told = json.loads(json.dumps(run.as_json(), allow_nan=False))

    assert told["state"] == "finished"
    assert told["closed"][0]["robots"][0]["name"] == "r1"
