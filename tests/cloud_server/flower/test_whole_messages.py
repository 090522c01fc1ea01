"""Whole messages on a real link state: handed out once, taken once, or not at all.

Robots' side of it is edge_agent/link/news.py.
"""

import numpy as np
import pytest
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from scripted_nodes import admit, content, objects, receive, reply

from cloud_server.flower import whole_messages
from cloud_server.flower.flower_link import LinkGrid
from cloud_server.flower.flower_superlink import create_superlink
from cloud_server.flower.whole_messages import WholeMessages
from fleet_model.errors import UpdateError
from fleet_model.protocol.whole import join, split
from fleet_model.protocol.wire import unpack_weights

pytestmark = pytest.mark.flower


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    return LinkGrid(create_superlink(str(tmp_path / "state.db"), "127.0.0.1", 1))


@pytest.fixture
def whole(grid):
    return WholeMessages(grid._state, lambda _: None, lambda: 1 << 20)


def inflate(body):
    """Return the message in a body, as a robot does."""
    from flwr.proto.fleet_pb2 import PullMessagesResponse
    from flwr.supercore.inflatable.inflatable_object import get_object_id
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    head, *parts = split(body)
    (tree,) = PullMessagesResponse.FromString(head).message_object_trees
    message = inflate_object_from_contents(
        tree.object_id, {get_object_id(part): part for part in parts}
    )
    message.metadata.__dict__["_message_id"] = tree.object_id
    return message


def reply_to(received, value=2.0):
    """Return a reply that a robot has made."""
    message = Message(content(value), reply_to=received)
    message.metadata.__dict__["_src_node_id"] = received.metadata.dst_node_id
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def body_of(message):
    """Return a whole reply, as a robot sends it."""
    from flwr.common.serde import message_to_proto
    from flwr.proto.fleet_pb2 import PushMessagesRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

    request = PushMessagesRequest(
        node=Node(node_id=message.metadata.src_node_id),
        messages_list=[message_to_proto(remove_content_from_message(message))],
        message_object_trees=[get_object_tree(message)],
    )
    parts = [one.deflate() for one in get_all_nested_objects(message).values()]
    return join((request.SerializeToString(), *parts))


def test_a_question_and_a_reply_travel_whole_and_leave_nothing(grid, whole):
    robots = [admit(grid, f"r{number}") for number in range(2)]
    grid.open_run()
    tickets = grid.push(content(1.0), [robot.node_id for robot in robots], 600.0)
    assert whole.waiting() == {robot.node_id for robot in robots}

    received = [inflate(whole.hand_out(robot.node_id)) for robot in robots]

    assert whole.waiting() == set()
    assert whole.hand_out(robots[0].node_id) is None  # once
    np.testing.assert_array_equal(unpack_weights(received[1].content["arrays"])["w"], 1.0)
    for robot, message, value in zip(robots, received, (2.0, 3.0), strict=True):
        body = body_of(reply_to(message, value))
        whole.take(robot.node_id, body)
        whole.take(robot.node_id, body)  # sent again: the answer was lost
        with pytest.raises(UpdateError, match="no longer"):
            whole.take(robot.node_id, body_of(reply_to(message, 9.0)))
    arrived = {one.node_id: one.content for one in grid.pull(list(tickets))}
    values = [unpack_weights(arrived[robot.node_id]["arrays"])["w"][0] for robot in robots]
    assert values == [2.0, 3.0]
    grid.pull([])
    assert objects(grid) == 0


def test_a_question_that_is_too_large_stays_for_flowers_way(grid, whole):
    robot = admit(grid)
    grid.open_run()
    (ticket,) = grid.push(content(size=1000), [robot.node_id], 600.0)

    assert whole.hand_out(robot.node_id, 100) is None

    assert whole.waiting() == {robot.node_id}
    reply(grid, receive(grid, robot.node_id))
    assert len(grid.pull([ticket])) == 1


def test_a_longer_question_goes_whole_to_a_robot_that_takes_it(grid, whole, monkeypatch):
    monkeypatch.setattr(whole_messages, "MOST_WHOLE_BYTES", 4000)
    robot = admit(grid)
    grid.open_run()
    grid.push(content(size=500), [robot.node_id], 600.0)
    assert whole.hand_out(robot.node_id, 1000) is None
    assert whole.hand_out(robot.node_id, 4000) is not None
    grid.push(content(size=2000), [robot.node_id], 600.0)
    assert whole.hand_out(robot.node_id, 10**9) is None  # whatever a robot asks for


def test_a_new_process_of_a_robot_is_handed_the_question_again(grid, whole):
    robot = admit(grid)
    grid.open_run()
    grid.push(content(), [robot.node_id], 600.0)
    assert whole.hand_out(robot.node_id) is not None

    grid.begin_session(robot.node_id)

    assert whole.hand_out(robot.node_id) is not None


def test_half_a_reply_that_came_by_flowers_way_is_completed_whole(grid, whole):
    robot = admit(grid)
    grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], 600.0)
    received = inflate(whole.hand_out(robot.node_id))
    message = reply_to(received)
    session = grid._state.start_session(grid._run.run_id)
    _, missing = grid._state.store_message_and_object_tree(
        remove_content_from_message(message), get_object_tree(message), session
    )
    assert len(missing) > 1
    assert grid.pull([ticket]) == []

    whole.take(robot.node_id, body_of(message))

    (arrived,) = grid.pull([ticket])
    assert unpack_weights(arrived.content["arrays"])["w"][0] == 2.0
    grid.pull([])
    assert objects(grid) == 0


def test_a_reply_to_a_run_that_has_ended_is_not_taken(grid, whole):
    robot = admit(grid)
    grid.open_run()
    grid.push(content(), [robot.node_id], 600.0)
    received = inflate(whole.hand_out(robot.node_id))
    grid.close_run(completed=True)

    with pytest.raises(UpdateError, match="its run or its time is over"):
        whole.take(robot.node_id, body_of(reply_to(received)))


def test_robots_that_are_spared_a_heartbeat_stay_online_and_others_do_not_come_online(grid, whole):
    here, gone = admit(grid, "here"), admit(grid, "gone")
    grid._state.deactivate_node(gone.node_id)

    online = whole.stay_online([here.node_id, gone.node_id], 1000.0)

    assert online == {here.node_id}  # the other one's robot is not spared its heartbeat
    nodes = {int(one.node_id): one for one in grid._nodes(None)}
    assert nodes[here.node_id].online_until > nodes[gone.node_id].online_until + 500
    assert grid.online() == {here.node_id}
