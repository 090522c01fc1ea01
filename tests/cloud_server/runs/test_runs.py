"""Runs with the real loop, checkpoints and history; the fleet and the export are fakes."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from history_lines import history_lines

from cloud_server.flower.flower_link import FlowerRun
from cloud_server.rounds import fleet as seam
from cloud_server.rounds.round_loop import Participant, Reply
from cloud_server.runs import lifecycle, schedule
from cloud_server.runs.run_store import RunStore
from cloud_server.runs.runs import Runs
from cloud_server.runs.schedule import ScheduleFile
from cloud_server.state import checkpoints as checkpoints_module
from cloud_server.state import history_file
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.learning_settings import AggregationSettings
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import GateSettings, RoundSettings, ServerSettings
from fleet_model.bundle import read_bundle, to_json
from fleet_model.errors import ExportError, RoundError, SettingsError, StoppedError
from fleet_model.protocol.outcome import Outcome
from fleet_model.types import Update

SETTINGS = ServerSettings(
    rounds=RoundSettings(quorum=1, deadline_s=5.0, wait_s=0.0),
    gate=GateSettings(publish="always"),
)


FLOWER = FlowerRun(run_id=2**63 + 1, task_id=7)


class Fleet(seam.Fleet):
    """One robot whose updates are +1; it answers when `gate` is open. Counts Flower runs."""

    def __init__(self):
        self.requests = []
        self.robots = [Participant(node_id=1, name="r1", site="hall")]
        self.gate = threading.Event()
        self.gate.set()
        self.metrics = {"loss_after": 0.5, "held_out": 2.0}
        self.opened, self.ended = [], []

    def open_run(self, resume):
        self.opened.append(resume)
        return resume or FLOWER

    def close_run(self, *, completed):
        self.ended.append(completed)

    def online(self):
        return self.robots

    def still_open(self, tickets):
        return set(tickets)

    def send(self, participants, request, ttl_s):
        self.requests.append(request)
        return {f"t{request.round}": participants[0]}

    def replies(self, tickets):
        if not self.gate.is_set() or not tickets:
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
        return [Reply(ticket=ticket, update=update) for ticket in tickets]


@pytest.fixture
def fleet():
    return Fleet()


@pytest.fixture
def published(monkeypatch, server_dir):
    """Replace the export, which needs TensorFlow; return the checkpoints it was given."""
    given = []

    def publish(server_dir, settings, checkpoint, stop, tell):
        given.append(checkpoint)
        return read_bundle(server_dir.model).model_copy(update={"version": checkpoint.version})

    monkeypatch.setattr(lifecycle, "publish", publish)
    return given


@pytest.fixture
def runs(server_dir, fleet, published):
    return Runs(server_dir, SETTINGS, fleet)


def finished(run):
    end = time.monotonic() + 240
    while run.active:
        assert time.monotonic() < end
        time.sleep(0.01)
    return run


def test_a_run_closes_its_rounds_and_publishes_the_last_checkpoint(
    runs, server_dir, fleet, published
):
    before = Checkpoints(server_dir.checkpoints).latest()

    run = finished(runs.start(3))

    assert (run.state, run.exit_code, run.error, run.published_version) == ("finished", 0, "", 4)
    after = Checkpoints(server_dir.checkpoints).latest()
    assert after.version == before.version + 3 == published[0].version
    np.testing.assert_allclose(after.weights["head/bias"], before.weights["head/bias"] + 3)
    assert [request.round for request in fleet.requests] == [1, 2, 3]
    assert [request.checkpoint.version for request in fleet.requests] == [1, 2, 3]
    assert {request.run for request in fleet.requests} == {run.id}
    assert fleet.ended == [True]


def test_robots_are_named_the_trainer_of_the_model_directory(runs, server_dir, fleet):
    finished(runs.start(1))

    manifest = read_bundle(server_dir.model)
    assert fleet.requests[0].trainer == manifest.trainer.sha256
    assert fleet.requests[0].trainer_bytes == manifest.trainer.size_bytes
    assert fleet.requests[0].config.epochs == SETTINGS.training.epochs


def test_every_closed_round_is_in_the_history_and_in_the_run(runs, server_dir):
    run = finished(runs.start(2))

    history = history_lines(server_dir)
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


def test_a_round_that_fails_ends_the_run_with_its_exit_code(runs, fleet, server_dir):
    fleet.robots = []

    run = finished(runs.start(2))

    assert (run.state, run.exit_code) == ("failed", RoundError.exit_code)
    assert "0 robots online" in run.error
    assert run.published_version is None
    assert fleet.ended == [False]
    assert Checkpoints(server_dir.checkpoints).latest().version == 1
    assert history_lines(server_dir) == []


def test_a_round_that_closed_before_the_failure_is_kept_and_published(
    runs, fleet, server_dir, published, monkeypatch
):
    online = fleet.online
    monkeypatch.setattr(fleet, "online", lambda: online() if not fleet.requests else [])

    run = finished(runs.start(2))

    assert run.state == "failed"
    assert Checkpoints(server_dir.checkpoints).latest().version == 2
    assert len(history_lines(server_dir)) == 1
    assert run.published_version == published[0].version == 2


def test_an_export_that_fails_ends_the_run_with_its_exit_code(runs, monkeypatch, fleet):
    def publish(server_dir, settings, checkpoint, stop, tell):
        raise ExportError("the files do not match")

    monkeypatch.setattr(lifecycle, "publish", publish)

    run = finished(runs.start(1))

    assert (run.state, run.exit_code) == ("failed", ExportError.exit_code)
    assert run.error == "the files do not match"
    assert fleet.ended == [True]


def test_a_damaged_checkpoint_ends_the_run_before_robots_are_asked(runs, server_dir, fleet):
    (Checkpoints(server_dir.checkpoints).path(1)).write_bytes(b"damaged")

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


def test_an_unknown_rule_is_a_settings_error_of_the_run(server_dir, fleet, published):
    wrong = AggregationSettings(rule="fedavgg")
    settings = SETTINGS.model_copy(update={"aggregation": wrong})

    run = finished(Runs(server_dir, settings, fleet).start(1))

    assert run.exit_code == 2
    assert "unknown plug-in 'fedavgg'" in run.error


def test_what_the_operator_is_told_is_json(runs):
    run = finished(runs.start(1))

    told = json.loads(json.dumps(run.as_json(), allow_nan=False))

    assert told["state"] == "finished"
    assert told["closed"][0]["robots"][0]["name"] == "r1"


@pytest.fixture
def next_process(server_dir, fleet, published):
    """Return the runs of a process that begins now, leaving at the end of the test."""
    made = []

    def begin(**changes):
        made.append(Runs(server_dir, SETTINGS.model_copy(update=changes), fleet))
        return made[-1]

    yield begin
    for runs in made:
        runs.leave()


def leave_in_the_middle(runs, fleet, rounds=2):
    """Start a run whose first round has closed, and end the process in its second."""
    run = runs.start(rounds)
    until(lambda: run.rounds_closed == 1)
    fleet.gate.clear()
    until(lambda: len(fleet.requests) == 2)
    runs.leave()
    return run


def until(done):
    end = time.monotonic() + 240
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def one_at_a_time(fleet, monkeypatch):
    """Let the second round begin only when the test has seen the first."""
    send = fleet.send

    def sending(participants, request, ttl_s):
        if request.round == 2:
            fleet.gate.clear()
        return send(participants, request, ttl_s)

    monkeypatch.setattr(fleet, "send", sending)


def test_the_next_process_goes_on_with_a_run_in_the_middle_of_a_round(
    runs, fleet, next_process, one_at_a_time, published, server_dir
):
    left = leave_in_the_middle(runs, fleet)
    assert left.active
    assert fleet.ended == []

    after = next_process()
    fleet.gate.set()
    after.go_on()
    run = finished(after.get(left.id))

    assert (run.state, run.rounds_closed, run.published_version) == ("finished", 2, 3)
    assert fleet.opened == [None, FLOWER]  # the same Flower run
    assert len(fleet.requests) == 2  # nobody was asked again
    assert [line["round"] for line in history_lines(server_dir)] == [1, 2]
    assert [record["round"] for record in run.closed] == [1, 2]


def test_a_process_that_ends_while_it_publishes_is_followed_by_one_that_publishes(
    runs, fleet, next_process, published, monkeypatch
):
    class GoneError(BaseException):
        pass

    def gone(server_dir, settings, checkpoint, stop, tell):
        raise GoneError

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "publish", gone)
        patch.setattr(threading, "excepthook", lambda _: None)
        run = runs.start(1)
        until(lambda: run.state == "publishing" and threading.active_count() < 20)
        for thread in runs._threads:
            thread.join(10)
    after = next_process()
    assert after.get(run.id).state == "publishing"

    after.go_on()

    assert finished(after.get(run.id)).published_version == published[0].version == 2
    assert len(fleet.requests) == 1


def test_a_process_that_is_told_to_end_while_it_exports_does_not_wait_for_the_export(
    runs, fleet, next_process, published, monkeypatch
):
    begun = threading.Event()

    def export(server_dir, settings, checkpoint, stop, tell):
        begun.set()
        until(stop)
        raise StoppedError("the export was stopped")

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "publish", export)
        run = runs.start(1)
        assert begun.wait(240)
        runs.leave()
    after = next_process()
    left = after.get(run.id)
    assert (left.state, left.error) == ("publishing", "")

    after.go_on()

    assert finished(after.get(run.id)).state == "finished"
    assert len(fleet.requests) == 1


def test_runs_of_earlier_processes_are_known_with_their_rounds(runs, next_process):
    run = finished(runs.start(2))

    (known,) = next_process().all()

    assert json.dumps(known.as_json()) == json.dumps(run.as_json())


def test_a_stop_ends_the_run_and_publishes_what_has_closed(runs, fleet, one_at_a_time, published):
    run = runs.start(3)
    until(lambda: len(fleet.requests) == 2)

    assert runs.stop(run.id) is run
    finished(run)

    assert (run.state, run.exit_code, run.rounds_closed) == ("stopped", 14, 1)
    assert "was stopped in round 2" in run.error
    assert run.published_version == published[0].version == 2
    assert fleet.ended == [False]


def test_what_was_stopped_goes_on_at_its_next_round(runs, fleet, one_at_a_time, server_dir):
    run = runs.start(3)
    until(lambda: len(fleet.requests) == 2)
    finished(runs.stop(run.id))
    fleet.gate.set()
    between = finished(runs.start(1))
    assert between.published_version == 3

    fleet.send = Fleet.send.__get__(fleet)
    resumed = finished(runs.resume(run.id))

    assert (resumed.state, resumed.error, resumed.rounds_closed) == ("finished", "", 3)
    assert resumed.published_version == 5
    history = [(line["run"], line["round"], line["version"]) for line in history_lines(server_dir)]
    assert history == [(run.id, 1, 2), (between.id, 1, 3), (run.id, 2, 4), (run.id, 3, 5)]


def test_a_stop_that_was_asked_for_is_not_forgotten_with_the_process(
    runs, fleet, next_process, one_at_a_time
):
    run = leave_in_the_middle(runs, fleet)
    run.stopping = True
    runs._store.save(run)

    after = next_process()
    after.go_on()

    assert finished(after.get(run.id)).state == "stopped"


@pytest.mark.parametrize("change", ["stop", "resume"])
def test_what_cannot_be_stopped_or_resumed_says_why(runs, change):
    run = finished(runs.start(1))

    with pytest.raises(RoundError, match="finished"):
        getattr(runs, change)(run.id)
    with pytest.raises(RoundError, match="there is no run unknown"):
        getattr(runs, change)("unknown")


def test_a_schedule_begins_runs_by_itself_and_outlives_the_process(
    runs, next_process, server_dir, monkeypatch
):
    first = finished(runs.repeat(1, 3600.0))
    assert first.scheduled
    later = time.time() + 3601
    monkeypatch.setattr("cloud_server.runs.schedule.TICK_S", 0.01)
    monkeypatch.setattr("cloud_server.runs.schedule.time.time", lambda: later)

    after = next_process()
    after.go_on()
    until(lambda: len(after.all()) > 1)

    assert finished(after.all()[1]).scheduled


def test_a_continuous_schedule_ends_with_a_run_that_is_stopped(runs, fleet, server_dir):
    fleet.gate.clear()
    run = runs.repeat(1, None)
    assert server_dir.schedule.exists()

    finished(runs.stop(run.id))

    assert not server_dir.schedule.exists()


def test_a_daily_schedule_does_not(runs, fleet, server_dir):
    fleet.gate.clear()
    run = runs.repeat(1, 86400.0)

    finished(runs.stop(run.id))

    assert server_dir.schedule.exists()


def test_whoever_wants_to_know_is_told_of_rounds_and_of_updates_that_failed_one(
    server_dir, fleet, published
):
    told = []
    runs = Runs(server_dir, SETTINGS, fleet, told=[told.append])
    finished(runs.start(1))
    fleet.metrics = {}
    fleet.replies = lambda tickets: [
        Reply(ticket=t, outcome=Outcome("failed", "disk full")) for t in tickets
    ]

    run = finished(runs.start(1))

    assert "disk full" in run.error
    assert [record.robots[0].outcome.kind for record in told] == ["accepted", "failed"]


def test_the_open_round_can_be_watched(runs, fleet):
    fleet.gate.clear()
    run = runs.start(1)
    until(lambda: runs.progress() is not None)

    now = runs.progress()
    assert (now.run, now.round, now.asked, now.answered) == (run.id, 1, 1, 0)
    until(lambda: runs.shown(run.id)["open_round"]["whom"] == "r1")
    fleet.robots = []  # it was switched off
    assert runs.shown(run.id)["open_round"]["whom"] == "r1 (offline)"
    fleet.gate.set()
    finished(run)
    assert runs.progress() is None
    assert runs.shown(run.id)["open_round"] is None
    assert fleet.requests[0].labels == ("circle", "square", "star")  # by which replies are read


def test_a_round_that_is_durable_but_could_not_be_written_down_is_not_trained_again(
    server_dir, fleet, published, monkeypatch
):
    append, told = ServerDirectory.append_history, []

    def full(server_dir, record):
        if record["round"] == 2:
            raise OSError(28, "No space left on device")
        append(server_dir, record)

    runs = Runs(server_dir, SETTINGS, fleet, told=[told.append])
    with monkeypatch.context() as patch:
        patch.setattr(ServerDirectory, "append_history", full)
        run = finished(runs.start(3))
    assert "No space left on device" in run.error

    finished(runs.resume(run.id))

    assert (run.state, run.rounds_closed, run.published_version) == ("finished", 3, 4)
    assert [request.round for request in fleet.requests] == [1, 2, 3]
    assert Checkpoints(server_dir.checkpoints).versions() == [1, 2, 3, 4]
    assert [line["round"] for line in history_lines(server_dir)] == [1, 2, 3]
    assert [record.round for record in told] == [1, 2, 3]


def test_a_damaged_description_of_the_newest_checkpoint_ends_the_run_before_robots_are_asked(
    runs, server_dir, fleet
):
    finished(runs.start(1))
    (server_dir.checkpoints / "000002" / "checkpoint.json").write_text("")

    run = finished(runs.start(1))

    assert run.exit_code == 8
    assert "remove the folder 000002" in run.error
    assert len(fleet.requests) == 1  # version 2 is not made again with other weights


def test_a_stop_that_comes_while_its_run_ends_does_not_bring_the_run_back(
    runs, fleet, server_dir, monkeypatch
):
    fleet.gate.clear()
    run, load = runs.start(1), ScheduleFile.load

    def while_it_ends(self):
        fleet.gate.set()
        finished(run)
        return load(self)

    monkeypatch.setattr(ScheduleFile, "load", while_it_ends)

    with pytest.raises(RoundError, match=r"has ended already \(finished\)"):
        runs.stop(run.id)
    (saved,) = RunStore(server_dir.runs).load()
    assert (saved.state, saved.stopping) == ("finished", False)


def test_a_schedule_that_is_set_with_its_first_run_is_not_due_before_that_run(
    runs, fleet, monkeypatch, caplog
):
    fleet.gate.clear()
    save, load, looked = ScheduleFile.save, ScheduleFile.load, threading.Event()

    def save_and_let_the_follower_look(self, schedule):
        save(self, schedule)
        looked.clear()
        looked.wait(0.3)  # it looks every millisecond, unless it has to wait for the run

    def seen(self):
        looked.set()
        return load(self)

    monkeypatch.setattr(schedule, "TICK_S", 0.001)
    monkeypatch.setattr(ScheduleFile, "save", save_and_let_the_follower_look)
    monkeypatch.setattr(ScheduleFile, "load", seen)
    runs.go_on()

    run = runs.repeat(1, None)

    looked.clear()
    assert looked.wait(240)
    runs.leave()
    assert runs.all() == [run]
    assert "schedule: run" not in caplog.text


def test_rounds_that_a_serverapp_closed_in_between_are_not_counted_as_its_own(
    runs, fleet, next_process, one_at_a_time, published, server_dir, monkeypatch
):
    left = leave_in_the_middle(runs, fleet)
    monkeypatch.setattr(fleet, "send", Fleet().send.__func__.__get__(fleet))
    checkpoints = Checkpoints(server_dir.checkpoints)
    newest = checkpoints.latest()
    checkpoints.save(replace(newest, version=newest.version + 5))

    after = next_process()
    fleet.gate.set()
    after.go_on()
    run = finished(after.get(left.id))

    assert (run.state, run.rounds_closed) == ("finished", 2)
    assert fleet.requests[-1].checkpoint.version == newest.version + 5


def test_a_damaged_schedule_is_told_and_makes_no_run_unstoppable(runs, fleet, server_dir):
    fleet.gate.clear()
    run = runs.repeat(1, None)
    server_dir.schedule.write_text("{")

    with pytest.raises(SettingsError, match="cloud-server schedule clear"):
        runs.stop(run.id)

    assert finished(run).state == "stopped"


def test_the_start_of_a_run_reads_no_more_records_when_there_are_many_checkpoints(
    server_dir, fleet, published, monkeypatch
):
    checkpoints = Checkpoints(server_dir.checkpoints)
    first = checkpoints.latest()
    for version in range(2, 40):
        record = RoundRecord(
            run="old", round=version, version=version, seconds=1.0, robots=(), metrics={}
        )
        server_dir.append_history(record.as_json())
        checkpoints.save(type(first)(version=version, weights=first.weights), record)
    read, parse = [], checkpoints_module.parse_record
    monkeypatch.setattr(
        checkpoints_module, "parse_record", lambda content: read.append(content) or parse(content)
    )
    monkeypatch.setattr(history_file, "parse_record", None)
    sent = threading.Event()
    fleet.gate.clear()
    monkeypatch.setattr(fleet, "online", lambda: sent.set() or fleet.robots)
    runs = Runs(server_dir, SETTINGS, fleet)

    run = runs.start(1)
    assert sent.wait(240)

    assert len(read) <= 1  # the newest one: its round may not be in the history yet
    fleet.gate.set()
    finished(run)


def test_no_run_replaces_an_imported_model_and_the_next_goes_on_from_what_it_made(
    runs, server_dir, published
):
    store = DirectoryStore(server_dir.store)
    manifest = store.latest("stable").manifest.model_copy(update={"imported": "yolox.onnx"})
    (server_dir.store / "versions" / "000001.json").write_bytes(to_json(manifest))
    run = finished(runs.start(2))
    assert published == []
    assert (run.published_version, run.release.kind, run.release.version) == (None, "withheld", 3)
    assert "they run version 1, which is yolox.onnx and was imported" in run.release.sentences()[0]
    assert "cloud-server models publish DIR 3" in run.release.sentences()[0]
    again = finished(runs.start(1))
    assert again.release.version == 4
    weights = [Checkpoints(server_dir.checkpoints).load(v).weights for v in (1, 4)]
    for before, after in zip(weights[0].values(), weights[1].values(), strict=True):
        assert after == pytest.approx(before + 3)  # three rounds, one after the other
