"""Which objects are below which: no robot's word on that is kept for another robot.

An object's id is the hash of its content, and its content names the objects below it. Flower's
store keeps the children that were announced first, before any content has come, and fails everybody
who announces others. One robot could so block the objects of another, or the server's next
question. Therefore a reply is kept as a list: all its objects directly below its message, whose id
is computed. Only messages and the server's own contents have objects below them then.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flwr.proto.message_pb2 import ObjectTree


def listed(tree: "ObjectTree") -> "ObjectTree":
    """Return a tree with every object once, directly below the root."""
    from flwr.proto.message_pb2 import ObjectTree
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

    parts = dict.fromkeys(item.object_id for item in iterate_object_tree(tree))
    parts.pop(tree.object_id)
    children = [ObjectTree(object_id=part) for part in parts]
    return ObjectTree(object_id=tree.object_id, children=children)


def question_tree(tree: "ObjectTree") -> "ObjectTree":
    """Return a message's tree with everything else directly below its content.

    All robots get the same content, so what is below it is registered once for all of them.
    """
    from flwr.proto.message_pb2 import ObjectTree

    return ObjectTree(object_id=tree.object_id, children=map(listed, tree.children))


def message_id(message: Any, tree: "ObjectTree") -> str:
    """Return the id that a message has, given its protobuf form without content and its tree."""
    from flwr.proto.message_pb2 import Message
    from flwr.supercore.constant import HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER
    from flwr.supercore.inflatable.inflatable_object import get_object_id

    bare = Message(metadata=message.metadata)
    bare.metadata.message_id = ""
    if message.HasField("error"):
        bare.error.CopyFrom(message.error)
    body = bare.SerializeToString(deterministic=True)
    children = ",".join(child.object_id for child in tree.children)
    head = HEAD_VALUE_DIVIDER.join(("Message", children, str(len(body))))
    return get_object_id(head.encode() + HEAD_BODY_DIVIDER + body)
