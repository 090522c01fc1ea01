"""What a robot says to itself of a request that it could not meet."""

from types import SimpleNamespace

import pytest
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from edge_agent.agent.participation import Participation
from edge_agent.agent.pulse import Pulse
from edge_agent.agent.status import StatusFile, read_status
from edge_agent.examples.source import source_of
from edge_agent.link.news import News
from edge_agent.models.deploy import Models
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink
from edge_agent.robot.train_when import TrainWhen
from fleet_model.protocol.outcome import unpack_failure
from fleet_model.protocol.report import Standing
from fleet_model.protocol.wire import RobotRequest, pack_request
from fleet_model.types import Checkpoint, TrainConfig

REQUEST = RobotRequest(
    deadline_s=60.0,
    run="run",
    round=1,
    checkpoint=Checkpoint(version=1, weights={}),
    config=TrainConfig(epochs=1),
    trainer="0" * 64,
    trainer_bytes=1,
)


class Link:
    """Hands out one message and keeps the reply."""

    bytes_up = bytes_down = 0
    is_receiving = False

    def __init__(self, message):
        self._messages, self.replies = [message], []

    def receive(self):
        return self._messages.pop() if self._messages else None

    def reply(self, message, seconds):
        self.replies.append(message)

    def activate(self): ...
    def heartbeat(self): ...
    def close(self): ...


@pytest.fixture
def robot(tmp_path, monkeypatch):
    """Return a maker of a robot that has got one message to train; with its link."""
    for name in ("_run_id", "_node_id", "_task_id"):  # only a ServerApp makes messages
        monkeypatch.setattr(TaskIdentity, name, 1)

    def make(**sections):
        server = ServerLink(address="localhost:1")
        settings = AgentSettings(server=server, state=tmp_path / "state", **sections)
        message = Message(pack_request(REQUEST), 1, "train")
        vars(message.metadata)["_message_id"] = "1"  # given by the server
        link = Link(message)
        monkeypatch.setattr(Participation, "_connect", lambda self: link)
        store = SimpleNamespace(bytes_down=0, server_ahead_s=0.0, standing=Standing())
        status = StatusFile(settings.state, "litert")
        models, pulse = Models(settings.state / "models", "stable"), Pulse(lambda: 0)
        part = Participation(settings, models, store, status, pulse, News(store))
        return settings, part, link

    return make


def test_a_wrong_label_topic_is_named_on_the_robot_and_told_without_names_to_the_server(
    bags, tmp_path, monkeypatch, robot
):
    bag = bags.drive(tmp_path / "front-door", ["circle"] * 9)
    settings, part, link = robot(examples=ExampleSettings(paths=(bag,), label_topic="/labels"))

    def look(request, name):  # like the training process: it opens the examples itself
        return list(source_of(settings).open(["circle"]).examples())

    monkeypatch.setattr(part._training, "answer", look)
    part.step()
    part.close()

    here = read_status(settings.state)["last_failure"]
    assert "front-door: no label topic /labels; it has /camera/label (9 messages)" in here
    told = link.replies[0].error.reason
    assert "its label topic is in none of its recordings" in told
    assert not any(word in told for word in ("front-door", "/labels", "/camera"))


def test_a_robot_whose_gate_is_closed_is_busy_and_says_why(tmp_path, robot):
    _, part, link = robot(train_when=TrainWhen(file=tmp_path / "docked"))

    part.step()
    part.close()

    outcome = unpack_failure(link.replies[0].error.code, link.replies[0].error.reason)
    assert (outcome.kind, outcome.words) == ("busy", "its gate file is not there")


def test_a_robot_that_no_question_waits_for_does_not_ask_unless_something_goes_on(robot):
    _, part, link = robot()
    part._store.standing = Standing(hold_s=25.0)
    part._news.fetched()
    received = []
    monkeypatched = link.receive
    link.receive = lambda: received.append(1) or monkeypatched()

    part.step()  # begins its session, and looks once
    assert len(received) == 1
    part._news.fetched()
    part.step()
    part.step()

    assert len(received) == 1
    part.close()
