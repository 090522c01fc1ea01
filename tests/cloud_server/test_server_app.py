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
from cloud_server.monitoring.tensorboard import EVENTS
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.offenses import Offenses
from cloud_server.robots.register import Register
from cloud_server.runs import lifecycle
from cloud_server.runs.run_store import KEPT_RUNS, Run, RunStore
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from fleet_model.errors import RoundError, SettingsError
from fleet_model.protocol.outcome import ACCEPTED, NOT_ADMITTED, Outcome
from fleet_model.protocol.proof import make_key, parse_public
from fleet_model.protocol.report import RobotReport
from fleet_model.protocol.version import PROTOCOL
from fleet_model.protocol.wire import RobotRequest, pack_request, pack_update, unpack_request
from fleet_model.types import TrainConfig, Update

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
def server_dir(server_dir: ServerDirectory, monkeypatch: pytest.MonkeyPatch) -> ServerDirectory:
    # Exporting needs TensorFlow; test_separate_superlink.py does it.
    def publish(*_: Any, **__: Any) -> Any:
        version = Checkpoints(server_dir.checkpoints).versions()[-1]
        return type("Manifest", (), {"version": version})

    monkeypatch.setattr(lifecycle, "publish", publish)
    monkeypatch.setenv("FLEETLEARN_GATE__PUBLISH", "always")
    monkeypatch.setattr(server_app, "log_to_stderr", lambda *_: None)  # it is of the process
    monkeypatch.setattr(server_app, "SWEEP_S", 0.0)
    monkeypatch.setattr(server_app, "LOOK_S", 0.0)
    return server_dir


@pytest.fixture
def grid(server_dir: ServerDirectory) -> DirectGrid:
    register, nodes = Register(server_dir.robots), []
    for number, name in enumerate(NAMES):
        line = make_key(server_dir.root / f"{name}.key")
        register.add(name, "hall", line)
        nodes.append(node(number + 2, pem(line)))
    return DirectGrid(nodes)


def pem(line: str) -> bytes:
    return parse_public(line).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def node(node_id: int, public_key: bytes, status: str = "online") -> NodeInfo:
    return NodeInfo(node_id=node_id, public_key=public_key, status=status)


def start(server_dir: ServerDirectory, grid: Grid, rounds: object) -> None:
    config: Any = {server_app.DIRECTORY: str(server_dir.root), server_app.ROUNDS: rounds}
    server_app.main(grid, context(config))


def context(config: Any) -> Context:
    return Context(
        run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config, series_id=1
    )


def fleet_of(server_dir: ServerDirectory, grid: Grid) -> server_app.GridFleet:
    return server_app.GridFleet(grid, Register(server_dir.robots), server_dir.seen)


def request(server_dir: ServerDirectory) -> RobotRequest:
    return RobotRequest(
        run="run", round=1, checkpoint=Checkpoints(server_dir.checkpoints).latest(),
        config=TrainConfig(), trainer="0" * 64, trainer_bytes=1, deadline_s=60.0,
    )  # fmt: skip


def versions(server_dir: ServerDirectory) -> list[int]:
    return [json.loads(line)["version"] for line in server_dir.history.read_text().splitlines()]


def test_rounds_over_a_grid_end_in_checkpoints_history_and_a_published_model(server_dir, grid):
    before = Checkpoints(server_dir.checkpoints).latest()
    start(server_dir, grid, 2)
    after = Checkpoints(server_dir.checkpoints).latest()
    assert after.version == before.version + 2
    for name, weights in before.weights.items():
        np.testing.assert_array_equal(after.weights[name], weights + np.float32(1) + np.float32(1))
    assert versions(server_dir) == [2, 3]
    (run,) = RunStore(server_dir.runs_apart).load()
    assert (run.state, run.rounds_closed, run.published_version) == ("finished", 2, 3)


def test_only_approved_robots_with_an_online_node_are_asked(server_dir, grid):
    register, fleet = Register(server_dir.robots), fleet_of(server_dir, grid)
    assert {robot.name for robot in fleet.online()} == set(NAMES)
    grid.nodes[1] = node(3, grid.nodes[1].public_key, "offline")
    grid.nodes += [node(7, pem(make_key(server_dir.root / "stranger.key"))), node(8, b"no key")]
    assert [robot.name for robot in fleet.online()] == ["r1"]
    register.suspend("r1", "for the test")
    assert fleet.online() == []


def test_a_robot_is_known_by_its_key_whatever_name_its_node_has(server_dir, grid):
    grid.nodes[0].name = "r2"
    robots = {robot.node_id: robot.name for robot in fleet_of(server_dir, grid).online()}
    assert robots == {2: "r1", 3: "r2"}


def test_robots_that_announce_any_higher_number_get_one_and_the_same_content(
    server_dir, grid, monkeypatch
):
    fleet, packed = fleet_of(server_dir, grid), []

    def pack(request: RobotRequest, protocol: int) -> RecordDict:
        packed.append(protocol)
        return pack_request(request, protocol)

    monkeypatch.setattr(server_app, "pack_request", pack)
    robots = [replace(r, protocol=3 + i) for i, r in enumerate(fleet.online())]
    assert len(fleet.send(robots, request(server_dir), 60.0)) == 2
    assert packed == [PROTOCOL]


def test_large_updates_are_taken_one_by_one_and_small_ones_together(server_dir, grid, monkeypatch):
    for together, expected in ((1, 1), (1 << 30, 2)):
        monkeypatch.setattr(server_app, "TOGETHER_BYTES", together)
        fleet, grid.most_at_once = fleet_of(server_dir, grid), 0
        open_ = set(fleet.send(fleet.online(), request(server_dir), 60.0))
        while open_:
            open_ -= {reply.ticket for reply in fleet.replies(open_)}
        assert grid.most_at_once == expected


def test_an_error_and_a_reply_that_is_no_update_carry_their_reasons(server_dir, grid):
    answers = iter(
        [
            lambda message: Message(Error(2, "busy: charging"), reply_to=message),
            lambda message: Message(RecordDict(), reply_to=message),
        ]
    )
    grid.answer = lambda message: next(answers)(message)
    fleet = fleet_of(server_dir, grid)
    sent = fleet.send(fleet.online(), request(server_dir), 60.0)
    replies = {sent[reply.ticket].name: reply for reply in fleet.replies(list(sent))}
    assert replies["r1"].outcome == Outcome("busy", "charging")
    assert replies["r2"].outcome.text.startswith("refused: the reply lacks the record")
    assert all(reply.update is None for reply in replies.values())


def new_key(server_dir: ServerDirectory, register: Register) -> None:
    register.forget("r1")
    register.add("r1", "hall", make_key(server_dir.root / "new.key"))


def new_name(server_dir: ServerDirectory, register: Register) -> None:
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
def test_an_update_of_a_robot_that_is_no_longer_admitted_is_not_taken(server_dir, grid, change):
    fleet = fleet_of(server_dir, grid)
    sent = fleet.send(fleet.online(), request(server_dir), 60.0)

    change(
        server_dir, Register(server_dir.robots)
    )  # as the operator's command does, in another process

    replies = {sent[reply.ticket].name: reply for reply in fleet.replies(list(sent))}
    assert (replies["r1"].update, replies["r1"].outcome) == (None, NOT_ADMITTED)
    assert replies["r2"].update is not None


def test_a_robot_that_is_revoked_in_mid_round_changes_no_weight(server_dir, grid, monkeypatch):
    def revoked_at_work(message: Message) -> Message:
        register = Register(server_dir.robots)
        if message.metadata.dst_node_id == 2 and register.by_name("r1").state == "approved":
            register.revoke("r1", "stolen")
        return answer(message)

    monkeypatch.setenv("FLEETLEARN_ROUNDS__QUORUM", "1")
    grid.answer = revoked_at_work

    start(server_dir, grid, 1)

    (record,) = Checkpoints(server_dir.checkpoints).records()
    assert {robot.name: robot.outcome for robot in record.robots} == {
        "r1": NOT_ADMITTED, "r2": ACCEPTED,
    }  # fmt: skip


def test_a_typing_error_in_the_register_ends_no_run_and_changes_nothing(server_dir, grid, caplog):
    fleet = fleet_of(server_dir, grid)
    sent = fleet.send(fleet.online(), request(server_dir), 60.0)
    good = server_dir.robots.read_text()
    server_dir.robots.write_text(good.replace("hall", "hall 1", 1))

    replies = fleet.replies(list(sent))

    assert all(reply.update is not None for reply in replies)
    assert {robot.name for robot in fleet.online()} == set(NAMES)
    assert caplog.text.count("robots stay as they were until it is corrected") == 1
    with pytest.raises(SettingsError, match="correct it or restore it"):  # as after a restart
        fleet_of(server_dir, grid).online()
    server_dir.robots.write_text(good.replace("hall", "hall-1"))
    assert {robot.site for robot in fleet.online()} == {"hall-1"}


def test_a_robot_that_has_just_become_busy_is_not_asked(server_dir, grid):
    fleet, seen = (
        fleet_of(server_dir, grid),
        LastSeen(server_dir.seen),
    )  # of the server, another process
    assert not any(robot.busy for robot in fleet.online())

    seen.looked("r1", None, RobotReport(busy="paused"))
    assert {robot.name: robot.busy for robot in fleet.online()} == {"r1": "paused", "r2": ""}

    seen.looked("r1", None, RobotReport())
    assert not any(robot.busy for robot in fleet.online())


def test_a_question_is_open_until_its_answer_or_its_time(server_dir, grid):
    fleet = fleet_of(server_dir, grid)
    grid.answer = lambda message: None
    robots = fleet.online()
    late = set(fleet.send(robots[:1], request(server_dir), -1.0))
    awaited = set(fleet.send(robots, request(server_dir), 60.0))
    assert fleet.still_open(late | awaited | {"of another process"}) == awaited
    ticket, *others = sorted(awaited)
    grid.waiting[ticket] = answer(grid.sent[int(ticket[1:])])
    fleet.replies(awaited)
    assert fleet.still_open(awaited) == set(others)


def test_a_serverapp_that_was_killed_goes_on_with_its_own_rounds(server_dir, grid):
    def die(message: Message) -> Message:
        if len(Checkpoints(server_dir.checkpoints).versions()) == 2:  # in round 2
            raise KeyboardInterrupt
        return answer(message)

    grid.answer = die
    with pytest.raises(KeyboardInterrupt):
        start(server_dir, grid, 3)
    grid.answer = answer
    start(server_dir, grid, 99)
    (run,) = RunStore(server_dir.runs_apart).load()
    assert (run.state, run.rounds, run.rounds_closed) == ("finished", 3, 3)
    assert versions(server_dir) == [2, 3, 4]


def test_a_serverapp_that_died_while_it_published_is_followed_by_one_that_publishes(
    server_dir, grid, monkeypatch
):
    def die(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            start(server_dir, grid, 2)
    (run,) = RunStore(server_dir.runs_apart).load()
    assert (run.state, run.rounds_closed) == ("publishing", 2)
    asked = len(grid.sent)

    start(server_dir, grid, 2)

    (run,) = RunStore(server_dir.runs_apart).load()
    assert (run.state, run.published_version) == ("finished", 3)
    assert len(grid.sent) == asked


def test_a_run_whose_round_failed_publishes_what_has_closed_and_goes_on_later(server_dir, grid):
    def refuse(message: Message) -> Message:
        if len(Checkpoints(server_dir.checkpoints).versions()) == 2:
            return Message(Error(2, "no examples"), reply_to=message)
        return answer(message)

    grid.answer = refuse
    with pytest.raises(RoundError, match="r1: failed: no examples; r2: failed: no examples"):
        start(server_dir, grid, 2)
    (run,) = RunStore(server_dir.runs_apart).load()
    assert (run.state, run.published_version) == ("failed", 2)
    grid.answer = answer
    start(server_dir, grid, 2)
    (run,) = RunStore(server_dir.runs_apart).load()
    assert (run.state, run.rounds_closed, run.published_version, run.error) == (
        "finished", 2, 3, "",
    )  # fmt: skip


def test_refused_updates_count_also_where_too_few_were_good(server_dir, grid):
    grid.answer = lambda message: Message(RecordDict(), reply_to=message)
    with pytest.raises(RoundError, match="refused"):
        start(server_dir, grid, 1)
    register = Register(server_dir.robots)
    offenses = Offenses(server_dir.offenses, register, suspend_after=3)
    assert [offenses.in_a_row(register.by_name(name)) for name in NAMES] == [1, 1]


def test_a_question_that_did_not_go_out_whole_is_asked_again(server_dir, grid, monkeypatch):
    push, failures = grid.push_messages, [ObjectPushError("4f2a", 1, "a session")]

    def half(messages: Iterable[Message]) -> list[str]:
        if failures:
            raise failures.pop()
        return push(messages)

    monkeypatch.setattr(grid, "push_messages", half)
    start(server_dir, grid, 1)
    assert not failures
    assert versions(server_dir) == [2]


def test_a_run_that_a_bug_has_ended_says_so_and_goes_on_later(server_dir, grid):
    def bug(message: Message) -> Message:
        raise ZeroDivisionError("/a/path")

    grid.answer = bug
    with pytest.raises(ZeroDivisionError):
        start(server_dir, grid, 1)
    (run,) = RunStore(server_dir.runs_apart).load()
    assert (run.state, run.exit_code) == ("failed", 1)
    assert run.error == "unexpected ZeroDivisionError; `flwr log` shows details"
    grid.answer = answer
    start(server_dir, grid, 1)
    (run,) = RunStore(server_dir.runs_apart).load()
    assert (run.state, run.error) == ("finished", "")


def test_rounds_that_others_closed_in_between_are_not_counted_as_its_own(server_dir, grid):
    store, checkpoints = RunStore(server_dir.runs_apart), Checkpoints(server_dir.checkpoints)
    run = server_app.take_up(store, checkpoints, 3, time.time())
    assert (run.first_version, run.rounds_closed) == (1, 0)
    start(server_dir, grid, 5)  # takes it up: three rounds
    run.rounds, run.rounds_closed = 4, 3
    store.save(run)
    other = DirectGrid(grid.nodes)
    newest = checkpoints.latest()
    checkpoints.save(replace(newest, version=newest.version + 1))
    start(server_dir, other, 1)
    (run,) = store.load()
    assert (run.state, run.rounds_closed) == ("finished", 4)
    assert checkpoints.latest().version == 6


def test_old_runs_are_forgotten_when_one_begins(server_dir):
    store = RunStore(server_dir.runs_apart)
    for number in range(KEPT_RUNS + 3):
        store.save(Run(id=f"old-{number}", rounds=1, state="finished", started_at=number))

    run = server_app.take_up(store, Checkpoints(server_dir.checkpoints), 1, time.time())

    kept = [one.id for one in store.load()]
    assert len(kept) == KEPT_RUNS
    assert (kept[0], kept[-1]) == ("old-4", run.id)


def test_closed_rounds_are_drawn_for_tensorboard_if_that_is_wanted(server_dir, grid, monkeypatch):
    pytest.importorskip("tensorboard")
    start(server_dir, grid, 1)
    assert not server_dir.tensorboard.exists()
    monkeypatch.setenv("FLEETLEARN_LOG__TENSORBOARD", "true")

    start(server_dir, grid, 1)

    assert {path.parent.name for path in server_dir.tensorboard.glob(f"*/{EVENTS}")} == {
        run.id for run in RunStore(server_dir.runs_apart).load()
    }


def test_a_run_tells_how_long_was_worked_on_it(server_dir, grid):
    start(server_dir, grid, 1)
    (run,) = RunStore(server_dir.runs_apart).load()
    assert 0 < run.seconds <= run.ended_at - run.started_at + 1


def test_verdicts_of_a_server_beside_it_are_kept_and_it_sees_those_of_the_run(server_dir, grid):
    register = Register(server_dir.robots)
    server = Offenses(server_dir.offenses, register, suspend_after=3)
    grid.answer = lambda message: Message(RecordDict(), reply_to=message)
    for number in (1, 2):
        with pytest.raises(RoundError, match="refused"):
            start(server_dir, grid, 1)
        assert server.in_a_row(register.by_name("r1")) == number


@pytest.mark.parametrize("rounds", [0, "3", None])
def test_a_wrong_number_of_rounds_is_refused(server_dir, grid, rounds):
    with pytest.raises(SettingsError, match="expected a number of rounds"):
        start(server_dir, grid, rounds)


def test_a_missing_directory_is_told_with_the_command(grid):
    with pytest.raises(SettingsError, match="flwr run APP SUPERLINK --run-config"):
        server_app.main(grid, context({}))


def test_no_two_serverapps_train_in_one_directory(server_dir, grid):
    first = f"stop `cloud-server start {server_dir.root}` first"
    with server_dir.locked("train"), pytest.raises(SettingsError, match=first):
        start(server_dir, grid, 1)
