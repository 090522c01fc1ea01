"""Two contracts: Flower's internals are in their places, and a message travels both ways."""

import logging
import threading
import time
from datetime import datetime, timezone

import numpy as np
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.flower.flower_link import LinkGrid
from cloud_server.flower.flower_superlink import create_superlink
from cloud_server.state.certificates import make_secrets
from cloud_server.state.directory import ServerDirectory
from edge_agent.link import flower_connection
from edge_agent.link.flower_connection import INTERNALS, FleetConnection
from fleet_model.errors import ConnectionFailed, RefusedError, UpdateError
from fleet_model.protocol.outcome import NO_REPLY, Outcome
from fleet_model.protocol.wire import pack_weights, unpack_weights

pytestmark = pytest.mark.flower
TTL_S = 60.0


@pytest.mark.parametrize("internal", INTERNALS)
def test_flower_has_the_internal(internal, require_internal):
    require_internal(internal, "edge_agent/link/flower_connection.py")


class Link:
    """An embedded SuperLink behind TLS, in this process."""

    def __init__(self, root):
        self.server_dir = ServerDirectory(root)
        make_secrets(self.server_dir, ("127.0.0.1",), datetime.now(timezone.utc))
        self.ca = (self.server_dir.certificates / "ca.crt").read_bytes()
        self.app = create_superlink(str(root / "state.db"), "127.0.0.1", 1)
        self.grid = LinkGrid(self.app)
        self.server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                port=0,
                ssl_certfile=str(self.server_dir.certificates / "server.crt"),
                ssl_keyfile=str(self.server_dir.secrets / "server.key"),
                log_level="warning",
                timeout_graceful_shutdown=1,
            )
        )
        self.thread = threading.Thread(target=self.server.run)

    def start(self):
        self.thread.start()
        until(lambda: self.server.started)
        (self.socket,) = self.server.servers[0].sockets
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"

    def stop(self):
        self.server.should_exit = True
        self.thread.join()

    def connect(self, key):
        return FleetConnection(self.address, self.ca, key)


def until(done, seconds=60.0):
    """Return the first result that is true."""
    end = time.monotonic() + seconds
    while not (result := done()):
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)
    return result


@pytest.fixture(scope="module")
def link(tmp_path_factory):
    root = tmp_path_factory.mktemp("link")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(root))
        link = Link(root)
        link.start()
        yield link
        link.stop()


@pytest.fixture
def key():
    return ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
def robot(link, key):
    """Return a robot that is online, and its node id."""
    node_id = link.grid.register(key.public_key(), "r1")
    connection = link.connect(key)
    connection.activate()
    yield connection, node_id
    connection.close()
    link.grid.unregister(node_id)


@pytest.fixture
def run(link):
    link.grid.open_run()
    yield link.grid
    link.grid.close_run(completed=True)


def content(**tensors):
    from flwr.app import ConfigRecord, RecordDict

    weights = {name.replace("_", "/"): tensor for name, tensor in tensors.items()}
    return RecordDict({"arrays": pack_weights(weights), "config": ConfigRecord({"round": 3})})


def answer(connection, received, reply_content):
    from flwr.app import Message

    connection.reply(Message(reply_content, reply_to=received), 0.5)


def test_tensors_travel_to_the_robot_and_back_unchanged(run, robot):
    connection, node_id = robot
    rng = np.random.default_rng(0)
    small = rng.normal(size=(1280, 4)).astype(np.float32)
    large = rng.normal(size=(1500, 1000)).astype(np.float32)  # 6 MB: Flower cuts it in two
    ((ticket, asked),) = run.push(content(head_kernel=small, large=large), [node_id], TTL_S).items()

    received = connection.receive()

    assert asked == node_id
    assert received.metadata.message_type == "train"
    assert received.content["config"]["round"] == 3
    weights = unpack_weights(received.content["arrays"])
    np.testing.assert_array_equal(weights["head/kernel"], small)
    np.testing.assert_array_equal(weights["large"], large)
    assert run.pull([ticket]) == []
    answer(connection, received, content(head_kernel=-small, large=-large))
    (arrived,) = run.pull([ticket])
    assert arrived.message_id == ticket
    weights = unpack_weights(arrived.content["arrays"])
    np.testing.assert_array_equal(weights["head/kernel"], -small)
    np.testing.assert_array_equal(weights["large"], -large)
    assert connection.bytes_down > 6_000_000 < connection.bytes_up


def test_a_message_is_handed_out_once_and_so_is_its_reply(run, robot):
    connection, node_id = robot
    (ticket,) = run.push(content(w=np.ones(3, np.float32)), [node_id], TTL_S)
    answer(connection, connection.receive(), content(w=np.zeros(3, np.float32)))

    assert connection.receive() is None
    assert len(run.pull([ticket])) == 1


def test_many_robots_get_the_same_content_and_replies_name_whom_they_are_from(link, run):
    keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(3)]
    nodes = [link.grid.register(key.public_key(), f"r{i}") for i, key in enumerate(keys)]
    robots = [link.connect(key) for key in keys]
    for connection in robots:
        connection.activate()
    assert link.grid.online() >= set(nodes)

    tickets = run.push(content(w=np.full(4, 7, np.float32)), nodes, TTL_S)
    for number, connection in enumerate(robots):
        received = connection.receive()
        np.testing.assert_array_equal(unpack_weights(received.content["arrays"])["w"], 7.0)
        answer(connection, received, content(w=np.full(4, number, np.float32)))
    arrived = {tickets[reply.message_id]: reply for reply in run.pull(tickets)}

    for number, node_id in enumerate(nodes):
        weights = unpack_weights(arrived[node_id].content["arrays"])
        np.testing.assert_array_equal(weights["w"], float(number))
    for connection, node_id in zip(robots, nodes, strict=True):
        connection.close()
        link.grid.unregister(node_id)


def test_an_error_of_the_robot_arrives_with_its_reason(run, robot):
    from flwr.app import Error, Message

    connection, node_id = robot
    (ticket,) = run.push(content(w=np.ones(3, np.float32)), [node_id], TTL_S)
    received = connection.receive()
    connection.reply(Message(Error(2, "no frames today"), reply_to=received), 0.0)

    (arrived,) = run.pull([ticket])

    assert arrived.content == Outcome("failed", "no frames today")


def test_a_key_that_nobody_admitted_is_refused(link, key):
    connection = link.connect(key)

    with pytest.raises(RefusedError, match="ActivateNode"):
        connection.activate()
    connection.close()


def test_a_robot_cannot_admit_itself(link, key):
    from flwr.proto.fleet_pb2 import RegisterNodeFleetRequest

    connection = link.connect(key)
    with pytest.raises((ConnectionFailed, RefusedError)):
        connection._call("RegisterNode", RegisterNodeFleetRequest(public_key=connection._public))

    with pytest.raises(RefusedError):
        connection.activate()
    connection.close()


def test_a_second_session_with_the_same_key_is_refused_until_the_first_has_ended(link, robot, key):
    _, node_id = robot
    second = link.connect(key)

    with pytest.raises(RefusedError, match="ActivateNode"):
        second.activate()
    link.grid.begin_session(node_id)  # as when a robot that was killed begins a new session
    second.activate()
    second.close()


def test_a_robot_that_was_removed_is_refused_and_one_that_is_admitted_again_comes_back(link, key):
    node_id = link.grid.register(key.public_key(), "r1")
    connection = link.connect(key)
    connection.activate()

    link.grid.unregister(node_id)
    assert node_id not in link.grid.registered()
    with pytest.raises(RefusedError):
        connection.receive()
    with pytest.raises(RefusedError):
        connection.activate()

    assert link.grid.register(key.public_key(), "r1") == node_id
    connection.activate()
    assert node_id in link.grid.online()
    connection.close()
    link.grid.unregister(node_id)


def test_a_key_keeps_its_node_and_is_listed_as_admitted(link, key):
    node_id = link.grid.register(key.public_key(), "r1")

    assert link.grid.register(key.public_key(), "another name") == node_id
    assert link.grid.registered()[node_id].startswith(b"-----BEGIN PUBLIC KEY-----")
    assert node_id not in link.grid.online()
    link.grid.unregister(node_id)


def test_a_heartbeat_is_answered_until_the_connection_is_closed(link, key):
    node_id = link.grid.register(key.public_key(), "r1")
    connection = link.connect(key)
    connection.activate()
    assert connection.heartbeat()

    connection.close()

    with pytest.raises(ConnectionFailed):
        connection.heartbeat()
    assert node_id not in link.grid.online()
    link.grid.unregister(node_id)


def test_a_message_outlives_its_time_neither_here_nor_there(run, robot):
    connection, node_id = robot
    for ttl_s in (3.0, 12.0, 48.0):  # more where the machine is so busy that it comes too late
        (ticket,) = run.push(content(w=np.ones(3, np.float32)), [node_id], ttl_s)
        if received := connection.receive():
            break
    (unread,) = run.push(content(w=np.ones(3, np.float32)), [node_id], ttl_s)

    time.sleep(ttl_s + 0.1)

    with pytest.raises(UpdateError, match="no longer"):
        answer(connection, received, content(w=np.zeros(3, np.float32)))
    assert connection.receive() is None
    arrived = run.pull([ticket, unread])
    assert {reply.message_id for reply in arrived} == {ticket, unread}
    assert all(reply.content == NO_REPLY for reply in arrived)


def test_a_reply_that_the_server_awaits_no_longer_is_told_so(run, robot):
    connection, node_id = robot
    run.push(content(w=np.ones(3, np.float32)), [node_id], TTL_S)
    received = connection.receive()
    answer(connection, received, content(w=np.zeros(3, np.float32)))

    with pytest.raises(UpdateError, match="awaits this reply no longer"):
        answer(connection, received, content(w=np.ones(3, np.float32)))


def test_work_of_a_run_that_has_ended_is_told_so(link, robot, caplog):
    connection, node_id = robot
    link.grid.open_run()
    link.grid.push(content(w=np.ones(3, np.float32)), [node_id], TTL_S)
    received = connection.receive()
    link.grid.close_run(completed=False)

    with pytest.raises(UpdateError, match="run has ended"):
        answer(connection, received, content(w=np.zeros(3, np.float32)))
    assert connection.receive() is None
    (said,) = [r for r in caplog.records if "run that has ended" in r.getMessage()]
    assert (said.levelname, said.name) == ("INFO", "flwr")
    assert "push-messages" in said.getMessage()
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


class PowerCutError(Exception):
    """The robot's power is gone."""


def test_a_robot_that_dies_while_it_uploads_holds_nobody_up(run, robot, monkeypatch):
    connection, node_id = robot
    (ticket,) = run.push(content(w=np.ones(3, np.float32)), [node_id], TTL_S)
    received = connection.receive()
    call = connection._call

    def die(method, request):
        if method == "PushObject":
            raise PowerCutError
        return call(method, request)

    monkeypatch.setattr(connection, "_call", die)
    with pytest.raises(PowerCutError):
        answer(connection, received, content(w=np.zeros(3, np.float32)))

    assert run.pull([ticket]) == run.pull([ticket]) == []  # and not NO_REPLY: it has not waited


def test_a_slow_upload_arrives_when_it_is_complete(run, robot, monkeypatch):
    connection, node_id = robot
    (ticket,) = run.push(content(w=np.ones(3, np.float32)), [node_id], TTL_S)
    received = connection.receive()
    call, looks = connection._call, []

    def slow(method, request):
        if method == "PushObject":
            looks.append(run.pull([ticket]))
        return call(method, request)

    monkeypatch.setattr(connection, "_call", slow)
    answer(connection, received, content(w=np.zeros(3, np.float32)))

    assert len(looks) > 2
    assert not any(looks)
    assert len(run.pull([ticket])) == 1


# ------------------------------------------------------------------------------- a bad network


@pytest.fixture
def cut(monkeypatch):
    """Return a function that cuts a connection before its n-th call of a method, once."""

    def at(connection, method, number):
        call, seen = connection._call, []

        def fail_once(name, request):
            seen.extend([name] * (name == method))
            if name == method and len(seen) == number:
                raise ConnectionFailed(f"{name}: cut")
            return call(name, request)

        monkeypatch.setattr(connection, "_call", fail_once)

    return at


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_message_that_is_cut_off_goes_on_arriving(run, robot, cut, number):
    connection, node_id = robot
    weights = np.random.default_rng(0).normal(size=(1500, 1000)).astype(np.float32)
    run.push(content(w=weights), [node_id], TTL_S)
    cut(connection, "PullObject", number)

    with pytest.raises(ConnectionFailed):
        connection.receive()
    assert connection.is_receiving
    connection.resume()
    received = connection.receive()
    assert not connection.is_receiving

    np.testing.assert_array_equal(unpack_weights(received.content["arrays"])["w"], weights)
    assert connection.receive() is None


@pytest.mark.parametrize(
    ("method", "number"), [("PushMessages", 1), ("PushObject", 1), ("PushObject", 3)]
)
def test_a_reply_that_is_cut_off_arrives_once_when_it_is_sent_again(
    run, robot, cut, method, number
):
    from flwr.app import Message

    connection, node_id = robot
    (ticket,) = run.push(content(w=np.ones(3, np.float32)), [node_id], TTL_S)
    received = connection.receive()
    reply = Message(content(w=np.full(3, 5, np.float32)), reply_to=received)
    cut(connection, method, number)

    with pytest.raises(ConnectionFailed):
        connection.reply(reply, 0.5)
    assert run.pull([ticket]) == []
    connection.resume()
    connection.reply(reply, 0.5)

    (arrived,) = run.pull([ticket])
    assert unpack_weights(arrived.content["arrays"])["w"].tolist() == [5, 5, 5]
    with pytest.raises(UpdateError, match="it has it, or its time was over"):
        connection.reply(reply, 0.5)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_half_a_reply_that_a_stock_superlink_has_handed_on_becomes_whole(run, robot, cut, number):
    from flwr.app import Message

    connection, node_id = robot
    (ticket,) = run.push(content(w=np.ones(3, np.float32)), [node_id], TTL_S)
    reply = Message(content(w=np.full(3, 5, np.float32)), reply_to=connection.receive())
    cut(connection, "PushObject", number)
    with pytest.raises(ConnectionFailed):
        connection.reply(reply, 0.5)
    run._state.delete_messages(message_ins_ids={ticket})  # as its handler of PullMessages does
    assert run._contents(reply.object_id) is None

    connection.resume()
    connection.reply(reply, 0.5)

    assert run._contents(reply.object_id) is not None
    with pytest.raises(UpdateError, match="it has it, or its time was over"):
        connection.reply(reply, 0.5)


@pytest.fixture
def stored(run, monkeypatch):
    """Return a function that reads or sets the content of an object, or deletes it by None.

    Robots wait 0.1 s within a call.
    """
    from flwr.supercore.state.schema.objectstore_models import StoredObject
    from sqlalchemy import delete, select, update

    monkeypatch.setattr(flower_connection, "LONGEST_WAIT_S", 0.1)

    def change(object_id, content):
        that = StoredObject.object_id == object_id
        with run._state.session() as session:
            before = session.scalar(select(StoredObject.content).where(that))
            if content is None:
                session.execute(delete(StoredObject).where(that))
            else:
                values = {"content": content, "is_available": int(bool(content))}
                session.execute(update(StoredObject).where(that).values(**values))
        return before

    return change


def test_a_message_that_is_announced_before_its_content_is_there_waits_for_it(run, robot, stored):
    connection, node_id = robot
    (ticket,) = run.push(content(w=np.full(3, 2, np.float32)), [node_id], TTL_S)
    root = stored(ticket, b"")

    for _ in range(3):
        assert connection.receive() is None
        assert connection.is_receiving
    stored(ticket, root)

    received = connection.receive()
    assert not connection.is_receiving
    assert unpack_weights(received.content["arrays"])["w"].tolist() == [2, 2, 2]


def test_a_message_that_is_withdrawn_before_its_content_is_there_is_given_up(run, robot, stored):
    connection, node_id = robot
    (ticket,) = run.push(content(w=np.ones(3, np.float32)), [node_id], TTL_S)
    stored(ticket, b"")
    assert connection.receive() is None
    stored(ticket, None)

    with pytest.raises(UpdateError, match="has withdrawn the message"):
        connection.receive()

    assert not connection.is_receiving
    assert connection.receive() is None


def test_a_message_that_cannot_be_read_is_given_up_and_the_next_one_comes(run, robot, monkeypatch):
    connection, node_id = robot
    run.push(content(w=np.ones(3, np.float32)), [node_id], TTL_S)
    run.push(content(w=np.full(3, 2, np.float32)), [node_id], TTL_S)
    with monkeypatch.context() as patch:
        patch.setattr(connection, "_pull", lambda incoming, request: b"damaged")
        with pytest.raises(UpdateError, match="the server's message is damaged"):
            connection.receive()

    received = connection.receive()

    assert unpack_weights(received.content["arrays"])["w"].tolist() == [2, 2, 2]


def test_a_session_goes_on_after_a_pause_and_begins_anew_where_it_is_not_known(link, robot, key):
    connection, node_id = robot
    connection.resume()
    assert node_id in link.grid.online()

    link.grid.begin_session(node_id)
    assert node_id not in link.grid.online()
    connection.resume()
    assert node_id in link.grid.online()

    link.grid.unregister(node_id)
    with pytest.raises(RefusedError):
        connection.resume()
    link.grid.register(key.public_key(), "r1")
    connection.resume()
    assert connection.receive() is None


def break_body(deflated):
    head, divider, body = deflated.partition(b"\x00")
    return head + divider + b"\xff" * len(body)


def test_a_reply_that_cannot_be_read_is_an_answer_and_not_the_end_of_the_run(
    run, robot, monkeypatch
):
    from flwr.app import ConfigRecord

    connection, node_id = robot
    (ticket,) = run.push(content(w=np.ones(3, np.float32)), [node_id], TTL_S)
    received = connection.receive()
    deflate = ConfigRecord.deflate
    with monkeypatch.context() as patch:  # the hashes fit: the robot means it
        patch.setattr(ConfigRecord, "deflate", lambda self: break_body(deflate(self)))
        answer(connection, received, content(w=np.zeros(3, np.float32)))

    (arrived,) = run.pull([ticket])

    assert arrived.message_id == ticket
    assert arrived.content.text.startswith("failed: unreadable reply")


def test_a_server_that_is_away_is_a_connection_failure(link, key):
    connection = FleetConnection("127.0.0.1:1", link.ca, key)

    with pytest.raises(ConnectionFailed, match="ActivateNode"):
        connection.activate()
    connection.close()


def test_a_server_with_another_authority_is_not_trusted(link, key, tmp_path):
    stranger = ServerDirectory(tmp_path)
    make_secrets(stranger, ("127.0.0.1",), datetime.now(timezone.utc))
    ca = (stranger.certificates / "ca.crt").read_bytes()

    connection = FleetConnection(link.address, ca, key)

    with pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED"):
        connection.activate()
    connection.close()


# ------------------------------------------------------------------------------- other versions


def other_flower(patch, server_refuses):
    """Let the robot say that it has a flwr of another minor version."""
    from flwr.supercore.dependencies.version import VersionDependency
    from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

    here = RuntimeVersionMetadata.from_local_component("SuperLink")
    other = RuntimeVersionMetadata("flwr", "1.1.0", "SuperNode")
    assert here.check_compatibility(other)
    patch.setattr(RuntimeVersionMetadata, "from_local_component", lambda _: other)
    check = VersionDependency.__call__

    def as_told(self, request):
        patch.setattr(self, "_reject_incompatible", server_refuses)
        check(self, request)

    patch.setattr(VersionDependency, "__call__", as_told)


def test_a_robot_with_another_minor_version_of_flower_takes_part(link, run, key, monkeypatch):
    other_flower(monkeypatch, server_refuses=False)  # as the fleet's routes of 1.41 and 1.42 do
    node_id = run.register(key.public_key(), "r1")
    connection = link.connect(key)
    connection.activate()
    (ticket,) = run.push(content(w=np.ones(3, np.float32)), [node_id], TTL_S)

    answer(connection, connection.receive(), content(w=np.zeros(3, np.float32)))

    assert len(run.pull([ticket])) == 1
    connection.close()
    run.unregister(node_id)


def test_a_server_that_refuses_another_version_of_flower_does_not_end_the_agent(
    link, key, monkeypatch
):
    other_flower(monkeypatch, server_refuses=True)
    connection = link.connect(key)

    with pytest.raises(RefusedError, match="another flwr and refuses this one; install the same"):
        connection.activate()
    connection.close()
