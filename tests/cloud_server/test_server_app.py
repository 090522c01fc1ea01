"""Our rounds over a Flower Grid: all is real but the SuperLink."""

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from flwr.app import Context, Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.task_identity import TaskIdentity

from cloud_server import server_app
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.robots.offenses import Conduct
from cloud_server.state.directory import ServerDirectory
from cloud_server.robots.register import Register
from cloud_server.runs.run_store import KEPT_RUNS, Run, RunStore
from cloud_server.robots.last_seen import Sightings
from cloud_server.monitoring.tensorboard import EVENTS
from fleet_model.errors import RoundError, SettingsError
from cloud_server.flower.flower_link import NOT_ADMITTED
from fleet_model.protocol.proof import make_key, parse_public
from fleet_model.protocol.report import RobotReport
from fleet_model.types import TrainConfig, Update
from fleet_model.protocol.wire import TrainRequest, pack_update, unpack_request

NAMES = ("r1", "r2")


class DirectGrid(Grid):
    """A SuperLink whose robots answer at once."""

    def __init__(self, nodes: Iterable[NodeInfo]) -> None:
        # A Message can only be made inside a task.
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
        self.nodes = list(nodes)
        self.sent: list[Message] = []
        self.waiting: dict[str, Message] = {}
        self.most_at_once = 0
        self.answer: Any = answer

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return [node.node_id for node in self.nodes]

    def get_nodes(self) -> list[NodeInfo]:
        return self.nodes

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            ticket = f"m{len(self.sent)}"
            message.metadata.__dict__["_message_id"] = ticket
            self.sent.append(message)
            reply = self.answer(message)
            if reply is not None:
                self.waiting[ticket] = reply
            ids.append(ticket)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        ids = list(message_ids)
        self.most_at_once = max(self.most_at_once, len(ids))
        return [self.waiting.pop(i) for i in ids if i in self.waiting]

    def send_and_receive(self, *_: Any, **__: Any) -> list[Message]:
        raise NotImplementedError


def answer(message: Message) -> Message:
    request = unpack_request(message.content)
    weights = {name: np.ones_like(w) for name, w in request.checkpoint.weights.items()}
    update = Update(
        robot="", base_version=request.checkpoint.version, weights=weights, num_examples=1,
        num_steps=1,
    )  # fmt: skip
    return Message(pack_update(update), reply_to=message)


@pytest.fixture
def place(server_place: ServerDirectory, monkeypatch: pytest.MonkeyPatch) -> ServerDirectory:
    def publish(*_: Any) -> Any:  # exporting needs TensorFlow; test_separate_superlink.py does it
        version = Checkpoints(server_place.checkpoints).versions()[-1]
        return type("Manifest", (), {"version": version})

    monkeypatch.setattr(server_app, "publish", publish)
    monkeypatch.setattr(server_app, "log_to_stderr", lambda _: None)  # it is of the process
    monkeypatch.setattr(server_app, "SWEEP_S", 0.0)
    monkeypatch.setattr(server_app, "LOOK_S", 0.0)
    return server_place


@pytest.fixture
def grid(place: ServerDirectory) -> DirectGrid:
    register, nodes = Register(place.robots), []
    for number, name in enumerate(NAMES):
        line = make_key(place.root / f"{name}.key")
        register.add(name, "hall", line)
        nodes.append(node(number + 2, pem(line)))
    return DirectGrid(nodes)


def pem(line: str) -> bytes:
    return parse_public(line).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def node(node_id: int, public_key: bytes, status: str = "online") -> NodeInfo:
    return NodeInfo(node_id=node_id, public_key=public_key, status=status)


def start(place: ServerDirectory, grid: Grid, rounds: object) -> None:
    config: Any = {server_app.DIRECTORY: str(place.root), server_app.ROUNDS: rounds}
    server_app.main(grid, context(config))


def context(config: Any) -> Context:
    return Context(
        run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config, series_id=1
    )


def fleet_of(place: ServerDirectory, grid: Grid) -> server_app.GridFleet:
    return server_app.GridFleet(grid, Register(place.robots), place.seen)


def request(place: ServerDirectory) -> TrainRequest:
    return TrainRequest(
        run="run", round=1, checkpoint=Checkpoints(place.checkpoints).latest(),
        config=TrainConfig(), trainer="0" * 64, trainer_bytes=1, deadline_s=60.0,
    )  # fmt: skip


def versions(place: ServerDirectory) -> list[int]:
    return [json.loads(line)["version"] for line in place.history.read_text().splitlines()]


def test_rounds_over_a_grid_end_in_checkpoints_history_and_a_published_model(place, grid):
    before = Checkpoints(place.checkpoints).latest()
    start(place, grid, 2)
    after = Checkpoints(place.checkpoints).latest()
    assert after.version == before.version + 2
    for name, weights in before.weights.items():
        np.testing.assert_array_equal(after.weights[name], weights + np.float32(1) + np.float32(1))
    assert versions(place) == [2, 3]
    (run,) = RunStore(place.runs_apart).load()
    assert (run.state, run.rounds_closed, run.published_version) == ("finished", 2, 3)


def test_only_approved_robots_with_an_online_node_are_asked(place, grid):
    register, fleet = Register(place.robots), fleet_of(place, grid)
    assert {robot.name for robot in fleet.online()} == set(NAMES)
    grid.nodes[1] = node(3, grid.nodes[1].public_key, "offline")
    grid.nodes += [node(7, pem(make_key(place.root / "stranger.key"))), node(8, b"no key")]
    assert [robot.name for robot in fleet.online()] == ["r1"]
    register.suspend("r1", "for the test")
    assert fleet.online() == []


def test_a_robot_is_known_by_its_key_whatever_name_its_node_has(place, grid):
    grid.nodes[0].name = "r2"
    robots = {robot.node_id: robot.name for robot in fleet_of(place, grid).online()}
    assert robots == {2: "r1", 3: "r2"}


def test_large_updates_are_taken_one_by_one_and_small_ones_together(place, grid, monkeypatch):
    for together, expected in ((1, 1), (1 << 30, 2)):
        monkeypatch.setattr(server_app, "TOGETHER_BYTES", together)
        fleet, grid.most_at_once = fleet_of(place, grid), 0
        open_ = set(fleet.send(fleet.online(), request(place), 60.0))
        while open_:
            open_ -= {reply.ticket for reply in fleet.replies(open_)}
        assert grid.most_at_once == expected


def test_an_error_and_a_reply_that_is_no_update_carry_their_reasons(place, grid):
    answers = iter(
        [
            lambda message: Message(Error(2, "busy: charging"), reply_to=message),
            lambda message: Message(RecordDict(), reply_to=message),
        ]
    )
    grid.answer = lambda message: next(answers)(message)
    fleet = fleet_of(place, grid)
    sent = fleet.send(fleet.online(), request(place), 60.0)
    replies = {sent[reply.ticket].name: reply for reply in fleet.replies(list(sent))}
    assert replies["r1"].reason == "busy: charging"
    assert replies["r2"].reason.startswith("refused: robot r2: the reply lacks the record")
    assert all(reply.update is None for reply in replies.values())


def new_key(place: ServerDirectory, register: Register) -> None:
    register.forget("r1")
    register.add("r1", "hall", make_key(place.root / "new.key"))


def new_name(place: ServerDirectory, register: Register) -> None:
    register.add("r9", "hall", register.forget("r1").key)


@pytest.mark.parametrize(
    "change",
    [
        lambda _, register: register.suspend("r1", "for the test"),
        lambda _, register: register.revoke("r1", "for the test"),
        lambda _, register: register.forget("r1"),
        new_key,
        new_name,
    ],
    ids=["suspended", "revoked", "forgotten", "of another key", "of another name"],
)
def test_an_update_of_a_robot_that_is_no_longer_admitted_is_not_taken(place, grid, change):
    fleet = fleet_of(place, grid)
    sent = fleet.send(fleet.online(), request(place), 60.0)

    change(place, Register(place.robots))  # as the operator's command does, in another process

    replies = {sent[reply.ticket].name: reply for reply in fleet.replies(list(sent))}
    assert (replies["r1"].update, replies["r1"].reason) == (None, NOT_ADMITTED)
    assert replies["r2"].update is not None


def test_a_robot_that_is_revoked_in_mid_round_changes_no_weight(place, grid, monkeypatch):
    def revoked_at_work(message: Message) -> Message:
        register = Register(place.robots)
        if message.metadata.dst_node_id == 2 and register.by_name("r1").state == "approved":
            register.revoke("r1", "stolen")
        return answer(message)

    monkeypatch.setenv("FLEETLEARN_ROUNDS__QUORUM", "1")
    grid.answer = revoked_at_work

    start(place, grid, 1)

    (record,) = Checkpoints(place.checkpoints).records()
    assert {robot.name: robot.outcome for robot in record.robots} == {
        "r1": NOT_ADMITTED, "r2": "accepted",
    }  # fmt: skip


def test_a_typing_error_in_the_register_ends_no_run_and_changes_nothing(place, grid, caplog):
    fleet = fleet_of(place, grid)
    sent = fleet.send(fleet.online(), request(place), 60.0)
    good = place.robots.read_text()
    place.robots.write_text(good.replace("hall", "hall 1", 1))

    replies = fleet.replies(list(sent))

    assert all(reply.update is not None for reply in replies)
    assert {robot.name for robot in fleet.online()} == set(NAMES)
    assert caplog.text.count("robots stay as they were until it is corrected") == 1
    with pytest.raises(SettingsError, match="correct it or restore it"):  # as after a restart
        fleet_of(place, grid).online()
    place.robots.write_text(good.replace("hall", "hall-1"))
    assert {robot.site for robot in fleet.online()} == {"hall-1"}


def test_a_robot_that_has_just_become_busy_is_not_asked(place, grid):
    fleet, seen = fleet_of(place, grid), Sightings(place.seen)  # of the server, another process
    assert not any(robot.busy for robot in fleet.online())

    seen.looked("r1", None, RobotReport(busy="paused"))
    assert {robot.name: robot.busy for robot in fleet.online()} == {"r1": "paused", "r2": ""}

    seen.looked("r1", None, RobotReport())
    assert not any(robot.busy for robot in fleet.online())


def test_a_question_is_open_until_its_answer_or_its_time(place, grid):
    fleet = fleet_of(place, grid)
    grid.answer = lambda message: None
    robots = fleet.online()
    late = set(fleet.send(robots[:1], request(place), -1.0))
    awaited = set(fleet.send(robots, request(place), 60.0))
    assert fleet.still_open(late | awaited | {"of another process"}) == awaited
    ticket, *others = sorted(awaited)
    grid.waiting[ticket] = answer(grid.sent[int(ticket[1:])])
    fleet.replies(awaited)
    assert fleet.still_open(awaited) == set(others)


def test_a_serverapp_that_was_killed_goes_on_with_its_own_rounds(place, grid):
    def die(message: Message) -> Message:
        if len(Checkpoints(place.checkpoints).versions()) == 2:  # in round 2
            raise KeyboardInterrupt
        return answer(message)

    grid.answer = die
    with pytest.raises(KeyboardInterrupt):
        start(place, grid, 3)
    grid.answer = answer
    start(place, grid, 99)
    (run,) = RunStore(place.runs_apart).load()
    assert (run.state, run.rounds, run.rounds_closed) == ("finished", 3, 3)
    assert versions(place) == [2, 3, 4]


def test_a_run_whose_round_failed_publishes_what_has_closed_and_goes_on_later(place, grid):
    def refuse(message: Message) -> Message:
        if len(Checkpoints(place.checkpoints).versions()) == 2:
            return Message(Error(2, "no examples"), reply_to=message)
        return answer(message)

    grid.answer = refuse
    with pytest.raises(RoundError, match="r1: no examples; r2: no examples"):
        start(place, grid, 2)
    (run,) = RunStore(place.runs_apart).load()
    assert (run.state, run.published_version) == ("failed", 2)
    grid.answer = answer
    start(place, grid, 2)
    (run,) = RunStore(place.runs_apart).load()
    assert (run.state, run.rounds_closed, run.published_version, run.error) == (
        "finished", 2, 3, "",
    )  # fmt: skip


def test_refused_updates_count_also_where_too_few_were_good(place, grid):
    grid.answer = lambda message: Message(RecordDict(), reply_to=message)
    with pytest.raises(RoundError, match="refused"):
        start(place, grid, 1)
    register = Register(place.robots)
    conduct = Conduct(place.conduct, register, suspend_after=3)
    assert [conduct.offenses(register.by_name(name)) for name in NAMES] == [1, 1]


def test_a_question_that_did_not_go_out_whole_is_asked_again(place, grid, monkeypatch):
    push, failures = grid.push_messages, [ObjectPushError("4f2a", 1, "a session")]

    def half(messages: Iterable[Message]) -> list[str]:
        if failures:
            raise failures.pop()
        return push(messages)

    monkeypatch.setattr(grid, "push_messages", half)
    start(place, grid, 1)
    assert not failures
    assert versions(place) == [2]


def test_a_run_that_a_bug_has_ended_says_so_and_goes_on_later(place, grid):
    def bug(message: Message) -> Message:
        raise ZeroDivisionError("/a/path")

    grid.answer = bug
    with pytest.raises(ZeroDivisionError):
        start(place, grid, 1)
    (run,) = RunStore(place.runs_apart).load()
    assert (run.state, run.exit_code) == ("failed", 1)
    assert run.error.startswith("ZeroDivisionError in Flower's ServerApp")
    grid.answer = answer
    start(place, grid, 1)
    (run,) = RunStore(place.runs_apart).load()
    assert (run.state, run.error) == ("finished", "")


def test_rounds_that_others_closed_in_between_are_not_counted_as_its_own(place, grid):
    store, checkpoints = RunStore(place.runs_apart), Checkpoints(place.checkpoints)
    run = server_app.take_up(store, checkpoints, 3, time.time())
    assert (run.first_version, run.rounds_closed) == (1, 0)
    start(place, grid, 5)  # takes it up: three rounds
    run.rounds, run.rounds_closed = 4, 3
    store.save(run)
    other = DirectGrid(grid.nodes)
    newest = checkpoints.latest()
    checkpoints.save(replace(newest, version=newest.version + 1))
    start(place, other, 1)
    (run,) = store.load()
    assert (run.state, run.rounds_closed) == ("finished", 4)
    assert checkpoints.latest().version == 6


def test_old_runs_are_forgotten_when_one_begins(place):
    store = RunStore(place.runs_apart)
    for number in range(KEPT_RUNS + 3):
        store.save(Run(id=f"old-{number}", rounds=1, state="finished", started_at=number))

    run = server_app.take_up(store, Checkpoints(place.checkpoints), 1, time.time())

    kept = [one.id for one in store.load()]
    assert len(kept) == KEPT_RUNS
    assert (kept[0], kept[-1]) == ("old-4", run.id)


def test_closed_rounds_are_drawn_for_tensorboard_if_that_is_wanted(place, grid, monkeypatch):
    pytest.importorskip("tensorboard")
    start(place, grid, 1)
    assert not place.tensorboard.exists()
    monkeypatch.setenv("FLEETLEARN_LOG__TENSORBOARD", "true")

    start(place, grid, 1)

    assert {path.parent.name for path in place.tensorboard.glob(f"*/{EVENTS}")} == {
        run.id for run in RunStore(place.runs_apart).load()
    }


def test_a_run_tells_how_long_was_worked_on_it(place, grid):
    start(place, grid, 1)
    (run,) = RunStore(place.runs_apart).load()
    assert 0 < run.seconds <= run.ended_at - run.started_at + 1


def test_verdicts_of_a_server_beside_it_are_kept_and_it_sees_those_of_the_run(place, grid):
    register = Register(place.robots)
    server = Conduct(place.conduct, register, suspend_after=3)
    grid.answer = lambda message: Message(RecordDict(), reply_to=message)
    for number in (1, 2):
        with pytest.raises(RoundError, match="refused"):
            start(place, grid, 1)
        assert server.offenses(register.by_name("r1")) == number


@pytest.mark.parametrize("rounds", [0, "3", None])
def test_a_wrong_number_of_rounds_is_refused(place, grid, rounds):
    with pytest.raises(SettingsError, match="expected a number of rounds"):
        start(place, grid, rounds)


def test_a_missing_directory_is_told_with_the_command(grid):
    with pytest.raises(SettingsError, match="flwr run APP SUPERLINK --run-config"):
        server_app.main(grid, context({}))


def test_no_two_serverapps_train_in_one_directory(place, grid):
    with place.locked("train"), pytest.raises(SettingsError, match="stop it first"):
        start(place, grid, 1)
