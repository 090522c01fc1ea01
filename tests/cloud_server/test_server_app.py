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
from cloud_server.checkpoints import Checkpoints
from cloud_server.conduct import Conduct
from cloud_server.directory import ServerDirectory
from cloud_server.robots import Register
from cloud_server.run_store import RunStore
from fleet_model.errors import RoundError, SettingsError
from fleet_model.proof import make_key, parse_public
from fleet_model.types import TrainConfig, Update
from fleet_model.wire import TrainRequest, pack_update, unpack_request

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
