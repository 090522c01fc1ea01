"""One admitted robot against another, over TLS: Flower's own checks and what we add to them."""

import base64
import ssl
import threading
import time
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.flower.flower_link import LinkGrid
from cloud_server.flower.flower_superlink import create_superlink
from cloud_server.state.settings import LimitSettings
from cloud_server.web.ownership import INTERNALS, Records, add_ownership
from cloud_server.web.reply_bound import ReplyBound
from edge_agent.link.flower_connection import FleetConnection
from fleet_model.errors import RefusedError, UpdateError

from .conftest import listening

pytestmark = pytest.mark.flower
MAX_REPLY_BYTES = 16_000
BOUND = ReplyBound(objects=50, content_bytes=MAX_REPLY_BYTES)


@pytest.mark.parametrize("internal", INTERNALS)
def test_flower_has_the_internal(internal, require_internal):
    require_internal(internal, "cloud_server/web/ownership.py")


class Robot:
    """An admitted robot that says what it wants to the fleet API, signed with its own key."""

    def __init__(self, link, name):
        from flwr.proto.node_pb2 import Node

        self.key = ec.generate_private_key(ec.SECP384R1())
        self.node_id = link.grid.register(self.key.public_key(), name)
        self.connection = FleetConnection(link.address, link.ca, self.key)
        self.connection.activate()
        self.node = Node(node_id=self.node_id)
        self.link = link

    def post(self, path, request, answer=None):
        """Return the status, and the answer if it was good."""
        from cryptography.hazmat.primitives import hashes, serialization
        from flwr.supercore.date import now

        stamp = now().isoformat()
        pem = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        signature = self.key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
        response = self.link.http.post(
            f"/v1/fleet/{path}",
            content=request.SerializeToString(),
            headers={
                "content-type": "application/protobuf",
                "flwr-public-key": base64.b64encode(pem).decode(),
                "flwr-timestamp": stamp,
                "flwr-signature": base64.b64encode(signature).decode(),
            },
        )
        good = response.status_code == 200 and answer is not None
        return response.status_code, answer.FromString(response.content) if good else None


class Link:
    """An embedded SuperLink with the check, two robots online and a message to each."""

    def __init__(self, number, app, server_dir):
        self.address, self.ca = (
            f"127.0.0.1:{number}",
            (server_dir.certificates / "ca.crt").read_bytes(),
        )
        self.app, self.grid = app, LinkGrid(app)
        verify = ssl.create_default_context(cafile=str(server_dir.certificates / "ca.crt"))
        self.http = httpx.Client(base_url=f"https://{self.address}", verify=verify, timeout=240)


@pytest.fixture(scope="module")
def link(keys_server_dir, tmp_path_factory):
    root = tmp_path_factory.mktemp("link")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(root))
        app = create_superlink(str(root / "state.db"), "127.0.0.1", 1)
        refused = []
        add_ownership(app, lambda: BOUND, refused=lambda *one: refused.append(one))
        with listening(app, keys_server_dir, LimitSettings()) as (number, _):
            link = Link(number, app, keys_server_dir)
            link.run_id, link.refused = link.grid.open_run().run_id, refused
            link.database = str(root / "state.db")
            with link.http:
                yield link
            link.grid.close_run(completed=True)


@pytest.fixture
def robots(link):
    pair = Robot(link, "r1"), Robot(link, "r2")
    yield pair
    for robot in pair:
        robot.connection.close()
        link.grid.unregister(robot.node_id)


def content(seed):
    from flwr.app import ArrayRecord, RecordDict
    from flwr.common import Array

    tensor = np.random.default_rng(seed).normal(size=(64, 8)).astype(np.float32)
    return RecordDict({"arrays": ArrayRecord({"head": Array(tensor)})})


def asked(link, robots):
    """Send both robots a message with content of its own; return the tickets."""
    tickets = {}
    for seed, robot in enumerate(robots):
        ((ticket, _),) = link.grid.push(content(seed), [robot.node_id], 60.0).items()
        tickets[robot] = ticket
    return tickets


def pull(robot):
    from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse

    _, answer = robot.post(
        "pull-messages", PullMessagesRequest(node=robot.node), PullMessagesResponse
    )
    return answer.messages_list[0], answer.message_object_trees[0]


def object_ids(tree):
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

    return [item.object_id for item in iterate_object_tree(tree)]


def push_request(link, robot, ticket, source, destination=1, seed=9):
    """Return a push-messages request with whatever it claims."""
    from flwr.app import Message

    made = Message(content(seed), destination, "train")
    made.metadata.__dict__.update(
        _run_id=link.run_id, _src_node_id=source, _reply_to_message_id=ticket, _ttl=30.0
    )
    return announcement(robot, made)


def announcement(robot, message, below=()):
    """Return the announcement of a message, with more trees below its content."""
    from flwr.app.message import remove_content_from_message
    from flwr.common.serde import message_to_proto
    from flwr.proto.fleet_pb2 import PushMessagesRequest

    message.metadata.__dict__["_message_id"] = message.object_id
    tree = tree_of(message)
    tree.children[0].children.extend(below)
    return PushMessagesRequest(
        node=robot.node,
        messages_list=[message_to_proto(remove_content_from_message(message))],
        message_object_trees=[tree],
    )


def tree_of(message):
    from flwr.supercore.inflatable.inflatable_object import get_object_tree

    return get_object_tree(message)


def push(link, robot, ticket, source, destination=1, seed=9):
    from flwr.proto.fleet_pb2 import PushMessagesResponse

    request = push_request(link, robot, ticket, source, destination, seed)
    return robot.post("push-messages", request, PushMessagesResponse)


def test_a_robot_reads_its_own_message_and_no_other(link, robots):
    from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse

    mine, other = robots
    asked(link, robots)
    bare, tree = pull(other)

    for object_id in object_ids(tree):
        request = {"run_id": bare.metadata.run_id, "object_id": object_id}
        spied = PullObjectRequest(node=mine.node, **request)
        own = PullObjectRequest(node=other.node, **request)
        assert mine.post("pull-object", spied)[0] == 403
        assert mine.post("pull-object", own)[0] == 401  # says that it is the other: Flower sees it
        status, answer = other.post("pull-object", own, PullObjectResponse)
        assert (status, answer.object_available) == (200, True)


def test_a_robot_deletes_no_message_of_another(link, robots):
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest

    mine, other = robots
    tickets = asked(link, robots)
    confirm = ConfirmMessageReceivedRequest(
        node=mine.node, run_id=link.run_id, message_object_id=tickets[other]
    )

    assert mine.post("confirm-message-received", confirm)[0] == 403

    assert other.connection.receive().metadata.message_id == tickets[other]
    confirm.message_object_id = tickets[mine]
    assert mine.post("confirm-message-received", confirm)[0] == 200


def test_a_robot_answers_for_nobody_else(link, robots):
    mine, other = robots
    tickets = asked(link, robots)

    assert push(link, mine, tickets[other], source=other.node_id)[0] == 403
    assert push(link, mine, tickets[other], source=mine.node_id)[0] == 403
    assert link.grid.pull(tickets.values()) == []

    status, answer = push(link, mine, tickets[mine], source=mine.node_id)
    assert status == 200
    assert answer.objects_to_push


def test_a_robot_sends_no_message_in_the_servers_name(link, robots):
    from flwr.common.constant import SUPERLINK_NODE_ID

    mine, other = robots

    for source in (SUPERLINK_NODE_ID, mine.node_id):
        assert push(link, mine, "", source=source, destination=other.node_id)[0] == 403
    assert other.connection.receive() is None


def test_a_robot_uploads_into_no_reply_of_another(link, robots):
    from flwr.proto.message_pb2 import PushObjectRequest

    mine, other = robots
    tickets = asked(link, robots)
    _, answer = push(link, other, tickets[other], source=other.node_id)
    upload = PushObjectRequest(
        node=mine.node,
        run_id=link.run_id,
        session_id=answer.session_id,
        object_id=answer.objects_to_push[0],
        object_content=b"x",
    )

    assert mine.post("push-object", upload)[0] == 403
    upload.session_id = ""  # Flower would look for the session that awaits the object
    assert mine.post("push-object", upload)[0] == 403


def test_a_reply_whose_objects_are_under_another_name_is_refused(link, robots):
    mine, _ = robots
    tickets = asked(link, robots)
    request = push_request(link, mine, tickets[mine], mine.node_id)
    request.message_object_trees[0].object_id = "0" * 64
    assert mine.post("push-messages", request)[0] == 403
    del request.message_object_trees[:]
    assert mine.post("push-messages", request)[0] == 403
    del request.messages_list[:]
    assert mine.post("push-messages", request)[0] == 403


def test_the_whole_way_of_an_honest_robot_is_open(link, robots):
    from flwr.app import Message

    mine, _ = robots
    tickets = asked(link, robots)
    received = mine.connection.receive()

    reply = Message(content(5), reply_to=received)
    mine.connection.reply(reply, 0.5)
    with pytest.raises(UpdateError):  # sent again: the answer to its last part was lost
        mine.connection.reply(reply, 0.5)

    end, arrived = time.monotonic() + 240, []
    while not arrived:
        assert time.monotonic() < end
        arrived = link.grid.pull([tickets[mine]])
    assert arrived[0].message_id == tickets[mine]
    assert arrived[0].content is not None
    link.grid.pull([])
    with pytest.raises(UpdateError):
        mine.connection.reply(reply, 0.5)


def answer_whole(link, robot):
    """Answer the question that waits, until the round loop has taken it; return the reply."""
    from flwr.app import Message

    reply = Message(content(5), reply_to=robot.connection.receive())
    robot.connection.reply(reply, 0.5)
    return reply


def test_a_second_answer_is_told_before_and_after_the_round_took_the_first(link, robots):
    mine, other = robots
    tickets = asked(link, robots)
    link.refused.clear()

    answer_whole(link, mine)
    assert push(link, mine, tickets[mine], mine.node_id)[1].objects_to_push == []
    assert link.refused == [(mine.node_id, "again")]
    assert [one.message_id for one in link.grid.pull([tickets[mine]])] == [tickets[mine]]
    link.grid.pull([])
    push(link, mine, tickets[mine], mine.node_id)
    assert link.refused == [(mine.node_id, "again")] * 2

    push(link, other, tickets[other], other.node_id)
    assert link.refused == [(mine.node_id, "again")] * 2


def test_the_same_reply_is_told_as_repeated_before_and_after_the_round_took_it(link, robots):
    mine, _ = robots
    tickets = asked(link, robots)
    link.refused.clear()

    reply = answer_whole(link, mine)
    with pytest.raises(UpdateError):
        mine.connection.reply(reply, 0.5)
    assert link.refused == [(mine.node_id, "repeated")]
    assert [one.message_id for one in link.grid.pull([tickets[mine]])] == [tickets[mine]]
    link.grid.pull([])
    with pytest.raises(UpdateError):
        mine.connection.reply(reply, 0.5)
    assert link.refused == [(mine.node_id, "repeated")] * 2


def test_a_reply_that_goes_on_where_it_was_cut_is_no_repeated_one(link, robots):
    from flwr.proto.fleet_pb2 import PushMessagesResponse

    mine, _ = robots
    tickets = asked(link, robots)
    link.refused.clear()
    request = push_request(link, mine, tickets[mine], mine.node_id)

    for _ in range(2):  # its objects are still missing
        assert mine.post("push-messages", request, PushMessagesResponse)[1].objects_to_push

    assert link.refused == []


def test_the_answer_of_a_robots_new_process_is_no_second_one(link, robots):
    mine, _ = robots
    tickets = asked(link, robots)
    link.refused.clear()
    push(link, mine, tickets[mine], mine.node_id, seed=1)  # and dies before its objects are sent

    link.grid.begin_session(mine.node_id)
    mine.connection.activate()
    _, answer = push(link, mine, tickets[mine], mine.node_id, seed=2)

    assert answer.objects_to_push
    assert link.refused == []


def test_an_answer_to_a_question_that_is_over_is_told_as_late_and_then_as_repeated(link, robots):
    mine, _ = robots
    tickets = asked(link, robots)
    link.refused.clear()
    link.grid._messages.settle(link.run_id, [tickets[mine]])
    request = push_request(link, mine, tickets[mine], mine.node_id)

    for _ in range(2):  # the second time because what the server said was lost
        assert mine.post("push-messages", request)[0] == 200

    assert link.refused == [(mine.node_id, "late"), (mine.node_id, "repeated")]


def test_a_reply_that_is_too_long_in_all_is_refused_before_it_is_whole(link, robots):
    from flwr.app import ArrayRecord, Message, RecordDict
    from flwr.common import Array

    mine, _ = robots
    asked(link, robots)
    received = mine.connection.receive()
    # Two tensors, each of which would fit.
    tensors = {n: Array(np.full(MAX_REPLY_BYTES // 6, n, np.float32)) for n in (1, 2)}
    long = RecordDict({str(n): ArrayRecord({"w": tensor}) for n, tensor in tensors.items()})

    with pytest.raises(RefusedError, match=f"longer than {MAX_REPLY_BYTES} bytes"):
        mine.connection.reply(Message(long, reply_to=received), 0.5)


def test_a_reply_that_announces_too_much_is_refused_before_the_database_sees_it(link, robots):
    from flwr.proto.message_pb2 import ObjectTree
    from flwr.supercore.state.schema.objectstore_models import StoredObject
    from sqlalchemy import func, select

    mine, _ = robots
    tickets = asked(link, robots)
    state = link.app.state.linkstate_factory.state()

    def known():
        with state.session() as session:
            return session.scalar(select(func.count()).select_from(StoredObject))

    def names(count):
        return [ObjectTree(object_id=f"{number:064x}") for number in range(count)]

    before = known()
    deep = ObjectTree(object_id="d" * 64)
    for _ in range(20):
        deep = ObjectTree(object_id="d" * 64, children=[deep])
    for children in (names(50), names(5000), [deep]):
        request = push_request(link, mine, tickets[mine], mine.node_id)
        del request.message_object_trees[0].children[:]
        request.message_object_trees[0].children.extend(children)
        assert mine.post("push-messages", request)[0] == 403
    assert known() == before
    assert link.refused[-3:] == [(mine.node_id, "large")] * 3

    assert push(link, mine, tickets[mine], mine.node_id)[0] == 200  # an honest one is taken


def tree(object_id, *children):
    from flwr.proto.message_pb2 import ObjectTree

    return ObjectTree(object_id=object_id, children=children)


def occupied(objects):
    """Return trees that name all objects of a tree, below each one that it does not have."""
    return [tree(one, tree(f"{n:064x}")) for n, one in enumerate(object_ids(objects))]


def receive_all(robots, *seeds):
    """Return what every robot would honestly answer, with the values of the seeds."""
    from flwr.app import Message

    return [
        Message(content(seed), reply_to=robot.connection.receive())
        for robot, seed in zip(robots, seeds or (6, 5), strict=True)
    ]


def arrived_whole(link, ticket, seed=5):
    """Whether the reply to a question is there, with the values of a seed."""
    (arrived,) = link.grid.pull([ticket])
    return same_values(arrived, seed)


def same_values(message, seed):
    sent, expected = (one["arrays"]["head"].numpy() for one in (message.content, content(seed)))
    return np.array_equal(sent, expected)


@pytest.mark.parametrize("moment", ["before", "between", "after", "settled between"])
def test_a_robot_occupies_no_object_of_another_reply(link, robots, moment):
    hostile, victim = robots
    tickets = asked(link, robots)
    own, reply = receive_all(robots)
    theirs = occupied(tree_of(reply).children[0])  # nobody can know the id of the message itself

    if moment == "after":
        victim.connection.reply(reply, 0.5)
    if "between" in moment:
        assert victim.post("push-messages", announcement(victim, reply))[0] == 200
    assert hostile.post("push-messages", announcement(hostile, own, theirs))[0] == 200
    if "settled" in moment:
        link.grid._messages.settle(link.run_id, [tickets[hostile]])
    if moment != "after":
        victim.connection.reply(reply, 0.5)

    assert arrived_whole(link, tickets[victim])


def test_what_was_occupied_before_a_restart_blocks_nobody_after_it(link, robots):
    hostile, victim = robots
    tickets = asked(link, robots)
    own, reply = receive_all(robots)
    request = announcement(hostile, own, occupied(tree_of(reply).children[0]))
    assert hostile.post("push-messages", request)[0] == 200

    LinkGrid(create_superlink(link.database, "127.0.0.1", 1)).heal(BOUND.objects)
    victim.connection.reply(reply, 0.5)
    LinkGrid(create_superlink(link.database, "127.0.0.1", 1)).heal(BOUND.objects)

    assert arrived_whole(link, tickets[victim])
    assert hostile.post("push-messages", request)[0] == 200


@pytest.mark.parametrize("shape", ["other children", "no children", "as it is"])
def test_a_robot_occupies_nothing_that_the_server_asks_next(link, robots, shape):
    hostile, _ = robots
    asked(link, robots)
    own, _ = receive_all(robots)
    question = tree_of(content(7))
    below = {
        "other children": occupied(question),
        "no children": [tree(one) for one in object_ids(question)],
        "as it is": [question],
    }
    request = announcement(hostile, own, below[shape])

    assert hostile.post("push-messages", request)[0] == 200
    link.grid.push(content(7), [robot.node_id for robot in robots], 60.0)
    assert hostile.post("push-messages", request)[0] == 200  # and once more

    assert all(same_values(robot.connection.receive(), 7) for robot in robots)


def test_no_reply_is_named_as_an_object_of_another_message(link, robots):
    hostile, victim = robots
    tickets = asked(link, robots)
    link.grid._messages.settle(link.run_id, tickets.values())
    tickets = link.grid.push(content(7), [robot.node_id for robot in robots], 60.0)
    bare, question = pull(hostile)
    link.refused.clear()

    for name in object_ids(question):
        request = push_request(link, hostile, bare.metadata.message_id, hostile.node_id)
        request.messages_list[0].metadata.message_id = name
        request.message_object_trees[0].CopyFrom(tree(name))
        assert hostile.post("push-messages", request)[0] == 403
    assert link.refused == [(hostile.node_id, "misnamed")] * len(object_ids(question))

    assert link.grid.pull(tickets) == []  # it would be settled, with all that is below it
    link.grid.pull(())
    assert same_values(victim.connection.receive(), 7)


def test_no_message_is_part_of_a_reply(link, robots):
    hostile, victim = robots
    asked(link, robots)
    own, reply = receive_all(robots)
    victim.connection.reply(reply, 0.5)
    link.refused.clear()

    for message in (reply.object_id, own.metadata.reply_to_message_id):
        request = announcement(hostile, own, [tree(message)])
        assert hostile.post("push-messages", request)[0] == 403

    assert link.refused == [(hostile.node_id, "misnamed")] * 2


def test_a_reply_whose_id_was_announced_as_a_part_before_is_taken(link, robots):
    hostile, victim = robots
    tickets = asked(link, robots)
    own, reply = receive_all(robots)

    request = announcement(hostile, own, [tree(reply.object_id)])
    assert hostile.post("push-messages", request)[0] == 200
    assert victim.post("push-messages", announcement(victim, reply))[0] == 200
    link.grid._messages.settle(link.run_id, [tickets[hostile]])
    victim.connection.reply(reply, 0.5)

    assert arrived_whole(link, tickets[victim])


def test_a_circle_is_taken_as_a_list_and_ends_with_its_reply(link, robots):
    hostile, _ = robots
    tickets = asked(link, robots)
    own, _ = receive_all(robots)
    before = len(link.grid._state.object_store)
    a, b = "a" * 64, "b" * 64

    request = announcement(hostile, own, [tree(a, tree(b, tree(a))), tree(b, tree(own.object_id))])
    assert hostile.post("push-messages", request)[0] == 200
    assert link.grid.pull([tickets[hostile]]) == []
    link.grid._messages.settle(link.run_id, [tickets[hostile]])

    assert len(link.grid._state.object_store) < before


def test_the_same_content_of_two_robots_lasts_as_long_as_one_of_them_needs_it(link, robots):
    tickets = asked(link, robots)
    replies = receive_all(robots, 8, 8)
    parts = {part for reply in replies for part in object_ids(tree_of(reply))}

    for robot, reply in zip(robots, replies, strict=True):
        robot.connection.reply(reply, 0.5)
    first, second = (tickets[robot] for robot in robots)

    assert arrived_whole(link, first, seed=8)
    assert arrived_whole(link, second, seed=8)  # the first one is deleted by now
    link.grid.pull(())
    assert not {part for part in parts if part in link.grid._state.object_store}


def test_a_reply_that_holds_more_than_it_announced_is_refused(link, robots):
    hostile, _ = robots
    tickets = asked(link, robots)
    own, _ = receive_all(robots)
    request = announcement(hostile, own)
    del request.message_object_trees[0].children[0].children[:]

    send_whole(hostile, request, own)

    (arrived,) = link.grid.pull([tickets[hostile]])
    assert arrived.content.text == "refused: the reply holds more objects than it has announced"


def send_whole(robot, request, message):
    """Announce a message and send what the server then awaits."""
    from flwr.proto.fleet_pb2 import PushMessagesResponse
    from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

    _, answer = robot.post("push-messages", request, PushMessagesResponse)
    objects = get_all_nested_objects(message)
    for object_id in answer.objects_to_push:
        upload = PushObjectRequest(
            node=robot.node,
            run_id=message.metadata.run_id,
            session_id=answer.session_id,
            object_id=object_id,
            object_content=objects[object_id].deflate(),
        )
        assert robot.post("push-object", upload, PushObjectResponse)[1].stored


class PushObjectRequest(SimpleNamespace):
    """As much of Flower's request as is looked at."""


class Meanwhile:
    """The bytes of an upload; while they are counted, another upload arrives."""

    def __init__(self, size, arrive):
        self.size, self.other = size, threading.Thread(target=arrive)

    def __len__(self):
        self.other.start()
        self.other.join(0.5)  # it ends in here, unless it has to wait for its turn
        return self.size


def test_two_uploads_of_one_reply_at_the_same_time_are_both_counted(link, robots):
    mine, _ = robots
    bound = ReplyBound(objects=9, content_bytes=100)
    state = link.app.state.linkstate_factory.state()
    records = Records(state, lambda: bound, refused=lambda *_: None)

    def upload(content):
        records.require_own(
            PushObjectRequest(node=mine.node, session_id="s", object_content=content)
        )

    meanwhile = Meanwhile(60, lambda: upload(b"x" * 40))
    upload(meanwhile)
    meanwhile.other.join()

    with pytest.raises(RefusedError, match="longer than 100 bytes"):
        upload(b"x")


def test_a_message_that_is_gone_is_told_by_flower_as_ever(link, robots):
    mine, _ = robots

    status, answer = push(link, mine, "1" * 64, source=mine.node_id)

    assert (status, list(answer.objects_to_push)) == (200, [])


def test_an_object_that_is_nowhere_is_told_by_flower_as_ever(link, robots):
    from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse

    mine, _ = robots
    request = PullObjectRequest(node=mine.node, run_id=link.run_id, object_id="2" * 64)

    status, answer = mine.post("pull-object", request, PullObjectResponse)
    assert (status, answer.object_found) == (200, False)
