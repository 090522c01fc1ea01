"""Which objects are below which in Flower's store, and what a message's id is."""

import pytest
from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.task_identity import TaskIdentity
from scripted_nodes import content

from cloud_server.flower.object_trees import listed, message_id, question_tree

pytestmark = pytest.mark.flower


def tree(name, *children):
    return ObjectTree(object_id=name, children=children)


def test_every_object_of_a_tree_is_listed_once_and_the_root_is_in_no_list():
    twice = tree("root", tree("a", tree("b"), tree("c")), tree("b", tree("root", tree("d"))))

    assert listed(twice) == tree("root", tree("b"), tree("c"), tree("a"), tree("d"))
    assert listed(tree("root")) == tree("root")


def test_all_but_its_content_is_below_the_content_of_a_question():
    assert question_tree(tree("q", tree("content", tree("a", tree("b"))))) == tree(
        "q", tree("content", tree("b"), tree("a"))
    )


@pytest.mark.parametrize("said", [content(), Error(code=3, reason="no")], ids=["content", "error"])
def test_the_id_of_a_message_is_known_before_it_has_come(said, monkeypatch):
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    asked = Message(content(), 7, "train", ttl=60.0)
    asked.metadata.__dict__.update(_message_id="1" * 64, _run_id=2**63 + 5)
    reply = Message(said, reply_to=asked)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    bare = message_to_proto(remove_content_from_message(reply))

    assert message_id(bare, get_object_tree(reply)) == reply.object_id
    bare.metadata.src_node_id = 8
    assert message_id(bare, get_object_tree(reply)) != reply.object_id
