"""The same question to many robots: the first is stored as Flower does it, the others as rows.

Flower registers a message with some forty statements, which take 20 ms: for 1,000 robots twenty
seconds in which nothing else is written.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict

    from cloud_server.flower.flower_state import FlowerState


def ask(
    state: Any,
    messages: "FlowerState",
    run_id: int,
    content: "RecordDict",
    node_ids: Sequence[int],
    ttl_s: float,
    message_type: str,
) -> dict[str, int]:
    """Send the same content to nodes; return message id -> node id of those that are there.

    In one transaction: a robot sees its question with all that belongs to it, or none.
    """
    from flwr.app import Message
    from flwr.supercore.inflatable.inflatable_object import no_object_id_recompute

    with no_object_id_recompute(), state.session():
        copies = [Message(content, node, message_type, ttl=ttl_s) for node in node_ids]
        for copy in copies:
            copy.metadata.__dict__["_message_id"] = copy.object_id
        for place, first in enumerate(copies):
            if _store(state, messages, run_id, first):
                stored = [first, *_store_alike(state, first, copies[place + 1 :])]
                sent = {str(one.metadata.message_id): one.metadata.dst_node_id for one in stored}
                messages.keep_whole(sent)
                return sent
    return {}


def _store(state: Any, messages: "FlowerState", run_id: int, message: Any) -> bool:
    """Store a question as Flower does, with its content; False if its node is not there."""
    from flwr.app.message import remove_content_from_message
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

    session_id = state.start_session(run_id)
    bare = remove_content_from_message(message)  # content travels as objects
    stored, absent = messages.store(bare, get_object_tree(message), session_id)
    objects = get_all_nested_objects(message)
    for object_id in absent:  # the session ends with its last object
        state.store_object(run_id, session_id, object_id, objects[object_id].deflate())
    return stored


def _store_alike(state: Any, first: "Message", copies: "Sequence[Message]") -> "list[Message]":
    """Store copies of a question that was stored before; return those whose nodes are there."""
    from flwr.app.message import remove_content_from_message
    from flwr.server.superlink.linkstate.utils import message_to_dict
    from flwr.supercore.constant import NodeStatus
    from flwr.supercore.state.schema.linkstate_models import MessageIns, Node
    from flwr.supercore.state.schema.objectstore_models import ObjectChild, RunObject, StoredObject
    from flwr.supercore.utils import uint64_to_int64
    from sqlalchemy import insert, select, update

    there = select(Node.node_id).where(Node.status.in_([NodeStatus.ONLINE, NodeStatus.OFFLINE]))
    with state.session() as session:
        admitted = set(session.scalars(there))
        kept = [one for one in copies if uint64_to_int64(one.metadata.dst_node_id) in admitted]
        if not kept:
            return []
        rows = [message_to_dict(remove_content_from_message(one)) for one in kept]
        for row in rows:
            for name in ("run_id", "src_node_id", "dst_node_id"):
                row[name] = uint64_to_int64(row[name])
        roots = [
            {"object_id": one.metadata.message_id, "content": one.deflate(), "is_available": 1}
            for one in kept
        ]
        below = select(ObjectChild.child_id).where(
            ObjectChild.parent_id == first.metadata.message_id
        )
        parts = list(session.scalars(below))
        children = [
            {"parent_id": root["object_id"], "child_id": part} for root in roots for part in parts
        ]
        owners = [{"run_id": row["run_id"], "object_id": row["message_id"]} for row in rows]
        for table, values in (
            (MessageIns, rows), (StoredObject, roots), (ObjectChild, children), (RunObject, owners),
        ):  # fmt: skip
            session.execute(insert(table), values)
        more = StoredObject.ref_count + len(kept)
        named = StoredObject.object_id.in_(parts)
        session.execute(update(StoredObject).where(named).values(ref_count=more))
    return kept


def drop_trees(state: Any, roots: Sequence[str]) -> None:
    """Delete trees of objects, also those that are kept whole; what is below others stays."""
    from flwr.supercore.state.schema.objectstore_models import ObjectChild, StoredObject
    from sqlalchemy import delete, func, select, update

    with state.session() as session:
        while roots:
            below = (
                select(ObjectChild.child_id, func.count())
                .where(ObjectChild.parent_id.in_(roots))
                .group_by(ObjectChild.child_id)
            )
            children = {str(child): int(times) for child, times in session.execute(below)}
            session.execute(delete(StoredObject).where(StoredObject.object_id.in_(roots)))
            for child, times in children.items():
                fewer = func.max(StoredObject.ref_count - times, 0)
                mine = StoredObject.object_id == child
                session.execute(update(StoredObject).where(mine).values(ref_count=fewer))
            unused = select(StoredObject.object_id).where(
                StoredObject.object_id.in_(children), StoredObject.ref_count == 0
            )
            roots = [str(one) for one in session.scalars(unused)]
