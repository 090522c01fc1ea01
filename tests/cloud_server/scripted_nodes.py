"""Robots played on a link state: what Flower's fleet API does when they ask, without a network.

A grid is a LinkGrid. Values are all elements of the one tensor "w".
"""

from types import SimpleNamespace

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict

from fleet_model.protocol.wire import pack_weights


def content(value=1.0, size=4):
    weights = {"w": np.full(size, value, np.float32)}
    return RecordDict({"arrays": pack_weights(weights), "config": ConfigRecord({"round": 3})})


def admit(grid, name="r1", key=None):
    key = key or ec.generate_private_key(ec.SECP384R1()).public_key()
    node_id = grid.register(key, name)
    grid._state.activate_node(node_id, 30.0)
    return SimpleNamespace(key=key, node_id=node_id)


def known_key(number):
    """Return a public key that is the same every time."""
    return ec.derive_private_key(number, ec.SECP384R1()).public_key()


def receive(grid, node_id, confirm=True):
    """Do what Flower's fleet API does when a robot asks."""
    messages = grid._state.get_message_ins(node_id=node_id, limit=1)
    if not messages:
        return None
    message = messages[0]
    root = message.metadata.message_id
    contents = whole(grid, root)
    if confirm:
        grid._state.object_store.delete(root)
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    received = inflate_object_from_contents(root, contents)
    received.metadata.__dict__["_message_id"] = root
    return received


def whole(grid, root):
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

    tree = grid._state.object_store.get_object_tree(root)
    ids = [item.object_id for item in iterate_object_tree(tree)]
    return {i: grid._state.get_object(grid._run.run_id, i) for i in ids}


def reply(grid, received, value=2.0, size=4, objects=None):
    """Send a reply, or only its first objects."""
    from flwr.app.message import remove_content_from_message
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        no_object_id_recompute,
    )

    message = Message(content(value, size), reply_to=received)
    message.metadata.__dict__["_src_node_id"] = received.metadata.dst_node_id
    message.metadata.__dict__["_message_id"] = message.object_id
    state, run_id = grid._state, grid._run.run_id
    with no_object_id_recompute():
        nested = get_all_nested_objects(message)
        session = state.start_session(run_id)
        stored, missing = state.store_message_and_object_tree(
            remove_content_from_message(message), get_object_tree(message), session
        )
        for object_id in missing[:objects]:
            assert state.store_object(run_id, session, object_id, nested[object_id].deflate())
    return stored


def objects(grid):
    return len(grid._state.object_store)
