"""Answering train messages, and staying in the fleet, against a real server."""

import threading
import time
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from edge_agent.link import fleet_client
from edge_agent.link.fleet_client import FleetClient, answer
from edge_agent.link.flower_connection import FleetConnection
from edge_agent.link.server_link import HttpsStore
from edge_agent.robot.settings import PollSettings, load_settings
from fleet_model.errors import (
    ConnectionFailed,
    FleetError,
    RefusedError,
    TrainingError,
    UpdateError,
)
from fleet_model.protocol.outcome import Outcome, unpack_failure
from fleet_model.protocol.version import PROTOCOL
from fleet_model.protocol.wire import RobotRequest, pack_request, unpack_update
from fleet_model.types import Checkpoint, TrainConfig, Update

WEIGHTS = {"head/kernel": np.ones((8, 3), np.float32), "head/bias": np.zeros(3, np.float32)}
REQUEST = RobotRequest(
    deadline_s=60.0,
    run="run",
    round=3,
    checkpoint=Checkpoint(version=7, weights=WEIGHTS),
    config=TrainConfig(epochs=2),
    trainer="0" * 64,
    trainer_bytes=10,
)


@pytest.fixture(scope="module", autouse=True)
def as_a_server_app():
    """Flower makes instruction messages only where a ServerApp runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_run_id", "_node_id", "_task_id"):
            patch.setattr(TaskIdentity, name, 1)
        yield


def update_for(request) -> Update:
    return Update(
        robot="",
        base_version=request.checkpoint.version,
        weights={name: np.full_like(w, 0.5) for name, w in request.checkpoint.weights.items()},
        num_examples=12,
        num_steps=6,
        metrics={"loss_before": 1.0},
    )


def message(content=None, kind="train") -> Message:
    return Message(pack_request(REQUEST) if content is None else content, 1, kind)


def failing(error):
    def train(request):
        raise error

    return train


# ------------------------------------------------------------------------------- answer


def test_the_update_goes_out_under_the_same_tensor_names():
    reply = answer(message(), update_for)
    update = unpack_update(reply.content, "r1")
    assert (update.base_version, update.num_examples, update.num_steps) == (7, 12, 6)
    assert update.weights.keys() == WEIGHTS.keys()
    assert all((tensor == 0.5).all() for tensor in update.weights.values())
    assert update.metrics["loss_before"] == 1.0


def test_training_sees_what_the_server_sent():
    seen = []
    answer(message(), lambda request: seen.append(request) or update_for(request))
    assert (seen[0].run, seen[0].round, seen[0].config) == ("run", 3, REQUEST.config)
    assert np.array_equal(seen[0].checkpoint.weights["head/kernel"], WEIGHTS["head/kernel"])


def test_an_error_becomes_its_reason():
    reply = answer(message(), failing(TrainingError("no examples; record some")))
    assert reply.has_error()
    assert unpack_failure(reply.error.code, reply.error.reason) == Outcome(
        "failed", "no examples; record some"
    )


def test_a_bug_is_answered_without_its_words_and_logged(caplog):
    reply = answer(message(), failing(ZeroDivisionError("/home/bob/secret")))
    assert reply.error.reason == (
        "failed: training failed with ZeroDivisionError; details are in the robot's log"
    )
    assert "secret" in caplog.text


def test_a_message_of_another_version_is_answered():
    reply = answer(message(RecordDict()), update_for)
    assert "lacks the record" in reply.error.reason


def test_an_update_that_cannot_be_sent_is_answered():
    reply = answer(message(), lambda request: None)
    assert "AttributeError" in reply.error.reason


@pytest.mark.parametrize("kind", ["query", "evaluate"])
def test_a_request_of_any_kind_is_handed_on_and_its_reply_sent(kind):
    asked = pack_request(replace(REQUEST, kind=kind))
    told = replace(update_for(REQUEST), kind=kind, weights={}, groups={"sums": WEIGHTS})
    reply = answer(message(asked, kind=kind), lambda request: replace(told, kind=request.kind))
    arrived = unpack_update(reply.content, "r1")
    assert (arrived.kind, arrived.weights, set(arrived.groups)) == (kind, {}, {"sums"})


def test_a_request_of_a_higher_protocol_is_answered_with_update_the_agent():
    content = pack_request(REQUEST)
    about = {**content.config_records["config"], "protocol": PROTOCOL + 1}
    content["config"] = ConfigRecord(about)
    reply = answer(message(content), failing(AssertionError("trained")))
    assert reply.error.reason.startswith("failed: the server's message is of protocol")
    assert reply.error.reason.endswith(": update the agent")


# ------------------------------------------------------------------------------- the deadline


def test_training_may_take_what_is_left_of_the_messages_time():
    seen = []
    answer(message(), lambda request: seen.append(request) or update_for(request), 12.5)
    answer(message(), lambda request: seen.append(request) or update_for(request))
    assert [request.deadline_s for request in seen] == [12.5, REQUEST.deadline_s]


def test_what_is_trained_too_late_is_no_reply():
    def train(request):
        time.sleep(0.02)
        raise TrainingError("the training process was stopped: it took longer than 0.01 s")

    with pytest.raises(UpdateError, match="abandoned: the server waits for it no longer"):
        answer(message(), train, 0.01)


def test_a_network_that_fails_while_training_gets_ready_is_no_answer():
    with pytest.raises(ConnectionFailed, match="gone"):
        answer(message(), failing(ConnectionFailed("gone")))


class Line:
    """A connection at the seam: hands messages out, takes replies, fails when it is told to."""

    bytes_up = bytes_down = 0
    is_receiving = False

    def __init__(self, *messages):
        self.messages, self.replies, self.fails, self.calls = list(messages), [], {}, []

    def _call(self, name):
        self.calls.append(name)
        if errors := self.fails.get(name):
            raise errors.pop(0)

    def activate(self):
        self._call("activate")

    def resume(self):
        self._call("resume")

    def heartbeat(self):
        return True

    def receive(self):
        self._call("receive")
        return self.messages.pop(0) if self.messages else None

    def reply(self, reply, seconds):
        self._call("reply")
        self.replies.append(reply)

    def close(self):
        self._call("close")


def asked(number):
    message = Message(pack_request(REQUEST), 1, "train", ttl=60.0)
    message.metadata.__dict__["_message_id"] = f"m{number}"
    return message


@pytest.fixture
def client_of():
    """Return a maker of clients on a line; what they trained stands in `trained`."""
    clients = []

    def make(line, train=update_for, **clock):
        trained = []
        client = FleetClient(
            lambda: line,
            lambda request: trained.append(request) or train(request),
            PollSettings(),
            **clock,
        )
        client.trained = trained
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def test_a_reply_that_could_not_be_sent_is_kept_and_sent_again_without_training(client_of):
    line = Line(asked(1))
    line.fails = {"reply": [ConnectionFailed("cut"), ConnectionFailed("cut")]}
    client = client_of(line)
    for _ in range(2):
        with pytest.raises(ConnectionFailed):
            client.step()
    line.fails["resume"] = [ConnectionFailed("still away")]
    with pytest.raises(ConnectionFailed):
        client.step()
    assert client.at_work
    assert client.step() is True
    assert not client.at_work
    assert [reply.metadata.reply_to_message_id for reply in line.replies] == ["m1"]
    assert len(client.trained) == 1
    assert line.calls.count("activate") == 1
    assert "close" not in line.calls  # a node that goes offline loses what it was asked
    assert client.step() is False


def test_a_session_that_a_hello_has_ended_is_resumed_though_no_call_has_failed(client_of):
    line = Line()
    client = client_of(line)
    client.session_ended()  # as at the start: there is nothing to resume
    assert client.step() is False
    assert line.calls == ["activate", "receive"]
    assert not client.goes_on

    client.session_ended()

    assert client.goes_on  # also while no message waits: else nobody would know that it is here
    client.step()
    assert line.calls == ["activate", "receive", "resume", "receive"]


def test_a_message_that_is_not_whole_yet_is_asked_for_again_though_no_other_waits(client_of):
    line = Line(None, asked(1))
    line.is_receiving = True
    client = client_of(line)
    assert client.step() is False
    assert client.goes_on
    assert client.step() is True
    assert line.calls == ["activate", "receive", "receive", "reply"]


def test_a_training_that_needs_the_network_is_tried_again(client_of):
    line, away = Line(asked(1)), [ConnectionFailed("no trainer now")]

    def train(request):
        if away:
            raise away.pop()
        return update_for(request)

    client = client_of(line, train)
    with pytest.raises(ConnectionFailed):
        client.step()
    assert client.step() is True
    assert not line.replies[0].has_error()


def test_a_message_whose_time_is_over_by_the_servers_clock_is_not_trained(client_of, caplog):
    line = Line(asked(1), asked(2))
    ahead = [70.0, 0.0]
    client = client_of(line, server_now=lambda: time.time() + ahead.pop(0))
    assert client.step() is False
    assert client.trained == line.replies == []
    assert caplog.text.count("the server waits for it no longer") == 1
    assert client.step() is True


def test_a_reply_whose_time_is_over_is_dropped(client_of, caplog, monkeypatch):
    now = 0.0
    monkeypatch.setattr(fleet_client, "time", SimpleNamespace(monotonic=lambda: now))
    line = Line(asked(1))
    line.fails = {"reply": [ConnectionFailed("cut")]}
    client = client_of(line)
    with pytest.raises(ConnectionFailed):
        client.step()
    now = 60.0
    assert client.step() is False
    assert line.replies == []
    assert caplog.text.count("the server waits for it no longer") == 1
    assert client.step() is False


def test_work_of_a_run_that_is_gone_is_dropped_with_one_line(client_of, caplog):
    line = Line(asked(1), asked(2))
    line.fails = {"reply": [UpdateError("PushMessages: the run has ended")]}
    client = client_of(line)
    assert client.step() is False
    assert len(caplog.records) == 1
    assert client.step() is True
    assert [reply.metadata.reply_to_message_id for reply in line.replies] == ["m2"]


def test_a_message_that_is_handed_out_once_more_is_answered_once(client_of):
    line = Line(asked(1), asked(1), asked(2))
    client = client_of(line)
    assert [client.step() for _ in range(3)] == [True, False, True]
    assert len(client.trained) == 2


def test_a_bug_costs_its_message_and_not_the_next_one(client_of):
    line = Line(asked(1), asked(1), asked(2))  # a hello has the first handed out once more
    line.fails = {"reply": [ZeroDivisionError("a bug")]}
    client = client_of(line)
    with pytest.raises(ZeroDivisionError):
        client.step()
    assert client.step() is False
    assert client.step() is True
    assert len(client.trained) == 2


def test_the_end_of_a_session_drops_the_work_and_says_so(client_of, caplog):
    line = Line(asked(1), asked(2))
    line.fails = {"reply": [RefusedError("suspended")]}
    client = client_of(line)
    with pytest.raises(RefusedError):
        client.step()
    client.close()
    assert "dropped" in caplog.text
    assert client.step() is True  # a new session
    assert line.calls.count("activate") == 2
    assert [reply.metadata.reply_to_message_id for reply in line.replies] == ["m2"]


# ------------------------------------------------------------------------------- in a fleet


@pytest.fixture
def join(server, tmp_path):
    """Return a maker of clients of robot r1."""
    settings = load_settings(server.admit(tmp_path / "r1", train=True), {})
    link, clients = settings.server, []

    def make(train=update_for, hello=True) -> FleetClient:
        store = HttpsStore(link)

        def connect():
            if hello:
                store.hello()
            return FleetConnection(link.address, link.ca.read_bytes(), store.key)

        clients.append(FleetClient(connect, train, PollSettings(idle_s=2, busy_s=0.1)))
        clients[-1].hello = store.hello
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def answer_run(server, client, seconds=90):
    """Start a run and step until it has failed; return why, which is what the robot replied."""
    run, end = server.start_run(), time.monotonic() + seconds
    while not (failed := server.failure(run)):
        client.step()
        assert time.monotonic() < end, "the run did not end"
    return failed


@pytest.mark.slow
def test_a_round_is_answered_and_the_pauses_get_short(server, join):
    server.start()
    client = join(train=failing(TrainingError("no examples in /home/bob")))
    assert client.step() is False
    assert server.online() == {"r1"}
    assert client.pause_s == 2
    assert "r1: failed: no examples in <path>" in answer_run(server, client)
    client.close()
    assert server.online() == set()


def test_an_update_is_accepted_and_its_bytes_are_counted(server, join):
    server.start()
    client = join()
    client.step()
    run, answered = server.start_run(), False
    while not (closed := server.closed(run)):
        answered |= client.step()
    assert answered
    assert [robot["outcome"] for robot in closed["robots"]] == ["accepted"]
    assert (closed["robots"][0]["num_examples"], closed["version"]) == (12, 2)
    before = client.pause_s
    assert 0.1 <= before < 2
    assert client.step() is False
    assert client.pause_s == pytest.approx(min(1.25 * before, 2))
    for _ in range(20):
        client.step()
    assert client.pause_s == 2
    up, down = client.last_traffic
    assert 200 < up < 5000
    assert 200 < down < 5000


@pytest.mark.slow
@pytest.mark.soak  # below it has trained meanwhile
def test_a_client_comes_back_when_the_server_was_restarted(server, join):
    server.start()
    client = join(train=failing(TrainingError("back again")))
    client.step()
    server.kill()
    with pytest.raises(FleetError):
        client.step()
    server.start()  # it still holds the old session for online: no hello is needed
    client.step()
    assert server.online() == {"r1"}
    assert "back again" in answer_run(server, client)


@pytest.mark.slow
def test_an_update_that_was_trained_while_the_server_died_is_accepted_by_the_next_one(server, join):
    server.start()
    trained = []

    def train(request):
        server.kill()
        trained.append(request)
        return update_for(request)

    client = join(train)
    client.step()
    run = server.start_run()
    with suppress(ConnectionFailed):
        while True:
            client.step()
    server.start()
    while not (closed := server.closed(run)):
        client.step()
    assert [(r["name"], r["outcome"]) for r in closed["robots"]] == [("r1", "accepted")]
    assert len(trained) == 1


@pytest.mark.slow
def test_a_message_that_was_lost_with_its_answer_is_handed_out_again_after_a_hello(
    server, join, monkeypatch
):
    server.start()
    client, lost = join(), []
    client.step()
    call = client._connection._call

    def lose_once(method, request):
        response = call(method, request)
        if method == "PullMessages" and response.messages_list and not lost:
            lost.append(response)
            raise ConnectionFailed("cut")
        return response

    monkeypatch.setattr(client._connection, "_call", lose_once)
    run = server.start_run()
    with suppress(ConnectionFailed):
        while True:
            client.step()
    assert not client.at_work
    client.hello()
    while not (closed := server.closed(run)):
        client.step()
    assert [robot["outcome"] for robot in closed["robots"]] == ["accepted"]


@pytest.mark.slow
def test_a_second_agent_with_the_same_key_is_refused_unless_it_says_hello(server, join):
    server.start()
    first = join()
    first.step()
    with pytest.raises(RefusedError):
        join(hello=False).step()
    assert first.step() is False
    second = join()
    assert second.step() is False
    assert server.online() == {"r1"}
    assert len(threads("heartbeat")) == 2


@pytest.mark.slow
@pytest.mark.soak  # above without a server
def test_work_that_ended_meanwhile_is_dropped_and_the_next_is_done(server, join):
    server.environment["FLEETLEARN_ROUNDS__DEADLINE_S"] = "8"
    server.start()
    runs = []

    def train(request):
        if len(runs) == 2:
            raise TrainingError("in time")
        server.wait_until(lambda: server.failure(runs[0]))
        return update_for(request)

    client = join(train)
    client.step()
    runs.append(server.start_run())
    while not server.failure(runs[0]):
        assert client.step() is False  # also when it has trained: nobody takes the update
    assert client.step() is False
    runs.append("the next")
    assert "in time" in answer_run(server, client)


def threads(name):
    return [thread for thread in threading.enumerate() if thread.name == name]
