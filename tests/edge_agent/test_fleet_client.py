"""Answering train messages, and staying in the fleet, against a real server."""

import threading
import time
from pathlib import PurePosixPath

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.fleet_client import FleetClient, answer, without_paths
from edge_agent.server_link import HttpsStore
from edge_agent.settings import PollSettings, load_settings
from fleet_model.errors import (
    BundleError,
    FleetError,
    FrameError,
    RefusedError,
    TrainingError,
)
from fleet_model.flower_compat import FleetConnection
from fleet_model.types import Checkpoint, TrainConfig, Update
from fleet_model.wire import TrainRequest, pack_request, unpack_update

WEIGHTS = {"head/kernel": np.ones((8, 3), np.float32), "head/bias": np.zeros(3, np.float32)}
REQUEST = TrainRequest(
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
    assert reply.error.reason == "no examples; record some"


def test_a_bug_is_answered_without_its_words_and_logged(caplog):
    reply = answer(message(), failing(ZeroDivisionError("/home/bob/secret")))
    assert reply.error.reason == (
        "training failed with ZeroDivisionError; details are in the robot's log"
    )
    assert "secret" in caplog.text


def test_a_message_of_another_version_is_answered():
    reply = answer(message(RecordDict()), update_for)
    assert "lacks the record" in reply.error.reason


def test_an_update_that_cannot_be_sent_is_answered():
    reply = answer(message(), lambda request: None)
    assert "AttributeError" in reply.error.reason


@pytest.mark.parametrize("kind", ["query", "evaluate", "system"])
def test_other_messages_are_declined(kind):
    reply = answer(message(kind=kind), failing(AssertionError("trained")))
    assert reply.error.reason == "this robot answers train messages only"


# Names as they are on disks: words, spaces, punctuation inside of words. Punctuation before a space
# ends a clause: what follows cannot be told from the sentence.
NAME = st.from_regex(r"\A[a-z0-9_]{1,4}([ .'+@#=~:-][A-Z0-9_]{1,4}){0,3}\Z")
PATHS = st.lists(NAME, min_size=2, max_size=5).map(lambda names: str(PurePosixPath("/", *names)))
SENTENCES = st.sampled_from(
    [
        "{}: no frames",
        "no frames in '{}'",
        'bag "{}" has no metadata.yaml; record again',
        "[Errno 2] No such file or directory: '{}'",
        "[Errno 18] Invalid cross-device link: '{}' -> '{}'",
        "({}) is not a bag",
        "{}, line 3: damaged",
        "image=file://{}; skipped",
    ]
)


@given(path=PATHS, sentence=SENTENCES)
def test_no_path_leaves_the_robot(path, sentence):
    reply = answer(message(), failing(BundleError(sentence.format(path, path))))
    names = PurePosixPath(path).parts[1:]
    assert "<path>" in reply.error.reason
    assert path not in reply.error.reason
    assert not any(f"/{name}" in reply.error.reason for name in names)


def test_what_a_frame_error_names_stays_on_the_robot():
    # A folder's name is the label of its pictures.
    reply = answer(message(), failing(FrameError("photos/circle/0001.jpg: a damaged jpeg")))
    assert reply.error.reason == "its recordings cannot be read; details are in the robot's log"


@given(path=PATHS, sentence=SENTENCES)
def test_quoted_paths_and_paths_without_spaces_vanish_whole(path, sentence):
    if "'" not in sentence:
        path = path.replace(" ", "_")
    said = sentence.format("", "").replace("''", "'<path>'").replace('""', '"<path>"')
    words = set(without_paths(sentence.format(path, path)).split())
    assert not [word for word in words if word not in said.split() and "<path>" not in word]


@pytest.mark.parametrize(
    "text",
    [
        "head/kernel has shape (8, 3), expected (8, 2)",
        "robot hall-1/r2: image/jpeg, 3/4 frames",
        "set training.trainer to one of: keras, litert",
        "version 3 has no 'int8' engine",
    ],
)
def test_what_is_no_path_stays(text):
    assert without_paths(text) == text


@pytest.mark.parametrize("path", ["~/bags", "~bob/bags/x", "C:\\Users\\bob", "\\\\host\\share"])
def test_homes_and_drives_are_paths_too(path):
    assert without_paths(f"at {path}: no frames") == "at <path>: no frames"


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
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def answer_run(server, client, seconds=30):
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
    assert "r1: no examples in <path>" in answer_run(server, client)
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
    assert client.pause_s == 0.1
    up, down = client.last_traffic
    assert 200 < up < 5000
    assert 200 < down < 5000


@pytest.mark.slow
def test_a_client_comes_back_when_the_server_was_restarted(server, join):
    server.start()
    client = join(train=failing(TrainingError("back again")))
    client.step()
    server.kill()
    with pytest.raises(FleetError):
        client.step()
    server.start()  # it still holds the old session for online
    client.step()
    assert server.online() == {"r1"}
    assert "back again" in answer_run(server, client)


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
def test_work_that_ended_meanwhile_is_dropped_and_the_next_is_done(server, join):
    server.environment["FLEETLEARN_ROUNDS__DEADLINE_S"] = "3"
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
