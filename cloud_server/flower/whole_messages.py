"""Questions handed out and replies taken whole, in one transaction each; see protocol/whole.py.

A reply that came whole is one row: all its objects as the content of its root. So nothing that a
robot has sent is an object that another robot's reply or the server's next question could name.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from fleet_model.errors import RefusedError, UpdateError
from fleet_model.protocol.whole import MAX_WHOLE_BYTES, MOST_WHOLE_BYTES, join, split

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.proto.message_pb2 import ObjectTree
    from sqlalchemy.orm import Session

MARK = b"fleetlearn whole reply 1\n"  # no object of Flower's begins like this
MOST_CONTENTS = 16  # of questions, in memory: one a protocol and site, of this round and the last
STALE = "the server awaits this reply no longer: its run or its time is over"

_Content = tuple[tuple[str, ...], tuple[bytes, ...]]  # ids and bytes of the objects below a message


def contents_of(stored: bytes) -> dict[str, bytes] | None:
    """Return object id -> bytes of a reply that came whole; None of any other object."""
    from flwr.supercore.inflatable.inflatable_object import get_object_id

    if not stored.startswith(MARK):
        return None
    return {get_object_id(part): part for part in split(stored[len(MARK) :])}


class WholeMessages:
    """Messages of one link state. Thread-safe, as the state is."""

    def __init__(
        self, state: Any, require_own: Callable[[Any], None], most_bytes: Callable[[], int]
    ) -> None:
        """Read nothing yet.

        Args:
            state: Flower's.
            require_own: raises RefusedError for a push-messages request, to be taken whole, that is
                not its node's.
            most_bytes: that the objects of a reply may have together.
        """
        self._state, self._require_own, self._most_bytes = state, require_own, most_bytes
        self._contents: OrderedDict[str, _Content] = OrderedDict()
        # SQLite has one writer. Who waits for it there sleeps, longer and longer, and is overtaken.
        self._writing = threading.Lock()

    def waiting(self) -> set[int]:
        """Return the nodes that have a question which they have not been handed."""
        from flwr.supercore.state.schema.linkstate_models import MessageIns
        from flwr.supercore.utils import int64_to_uint64
        from sqlalchemy import select

        query = select(MessageIns.dst_node_id).where(
            MessageIns.delivered_at == "", MessageIns.created_at + MessageIns.ttl > time.time()
        )
        with self._state.session() as session:
            return {int64_to_uint64(node_id) for node_id in session.scalars(query)}

    def stay_online(self, node_ids: Collection[int], seconds: float) -> set[int]:
        """Do what a heartbeat of each node does; return those that are online.

        One that is not stays so: its robot's session has ended, and it must say that it is there.
        """
        from flwr.supercore.constant import NodeStatus
        from flwr.supercore.state.schema.linkstate_models import Node
        from flwr.supercore.utils import int64_to_uint64, uint64_to_int64
        from sqlalchemy import select, update

        mine = Node.node_id.in_([uint64_to_int64(node_id) for node_id in node_ids])
        online = mine, Node.status == NodeStatus.ONLINE
        with self._state.session() as session:
            until = time.time() + seconds
            session.execute(update(Node).where(*online).values(online_until=until))
            found = session.scalars(select(Node.node_id).where(*online)).all()
        return {int64_to_uint64(node_id) for node_id in found}

    def hand_out(self, node_id: int, most_bytes: int = MAX_WHOLE_BYTES) -> bytes | None:
        """Return a node's oldest question whole, as it is handed out; None if there is none.

        None, too, of one that is longer than about `most_bytes` or not stored to its end: it stays,
        for Flower's way.
        """
        from flwr.common.serde import message_to_proto
        from flwr.proto.fleet_pb2 import PullMessagesResponse
        from flwr.server.superlink.linkstate.utils import dict_to_message
        from flwr.supercore.utils import int64_to_uint64

        try:
            with self._writing, self._state.session() as session:
                row = self._claim(session, node_id)
                if row is None:
                    return None
                tree, objects = self._objects(session, row.message_id, most_bytes)
                fields = {one.name: getattr(row, one.name) for one in row.__table__.columns}
        except _NotWholeError:  # the transaction is undone, the claim with it
            return None
        for name in ("run_id", "src_node_id", "dst_node_id"):
            fields[name] = int64_to_uint64(fields[name])
        message = message_to_proto(dict_to_message(fields))
        head = PullMessagesResponse(messages_list=[message], message_object_trees=[tree])
        return join((head.SerializeToString(), *objects))

    def take(self, node_id: int, body: bytes) -> None:
        """Keep a whole reply of a node; the same one again changes nothing.

        Raises:
            RefusedError: it is no whole reply, or not this node's.
            UpdateError: nobody awaits it.
        """
        from flwr.common.serde import message_from_proto

        request, objects = self._read(node_id, body)
        reply = message_from_proto(request.messages_list[0])
        with self._writing, self._state.session() as session:
            if self._must_keep(session, node_id, reply):
                self._store(session, reply, MARK + join(objects))

    def _must_keep(self, session: "Session", node_id: int, reply: "Message") -> bool:
        """Return whether a reply is to be kept, False if it is already; raises UpdateError."""
        from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes
        from flwr.supercore.state.schema.objectstore_models import StoredObject
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import select

        about = reply.metadata
        query = (
            select(MessageRes.message_id, StoredObject.is_available)
            .select_from(MessageIns)
            .outerjoin(MessageRes, MessageRes.reply_to_message_id == MessageIns.message_id)
            .outerjoin(StoredObject, StoredObject.object_id == MessageRes.message_id)
            .where(MessageIns.message_id == about.reply_to_message_id)
            .where(MessageIns.dst_node_id == uint64_to_int64(node_id))
            .where(MessageIns.run_id == uint64_to_int64(about.run_id))
            .where(MessageIns.created_at + MessageIns.ttl > time.time())
        )
        row = session.execute(query).first()
        if row is None or row[0] not in (None, about.message_id):
            raise UpdateError(STALE)
        return row[1] != 1

    def _read(self, node_id: int, body: bytes) -> tuple[Any, Sequence[bytes]]:
        from flwr.proto.fleet_pb2 import PushMessagesRequest
        from flwr.supercore.inflatable.inflatable_object import get_object_id, iterate_object_tree
        from google.protobuf.message import DecodeError

        try:
            head, *objects = split(body)
            request = PushMessagesRequest.FromString(head)
        except (ValueError, DecodeError):
            raise RefusedError("expected a whole reply") from None
        if request.node.node_id != node_id:
            raise RefusedError("a robot speaks for itself only")
        if sum(map(len, objects)) > self._most_bytes():
            raise RefusedError(f"a reply is longer than {self._most_bytes()} bytes")
        trees = list(request.message_object_trees)
        self._require_own(request)
        announced = {item.object_id for tree in trees for item in iterate_object_tree(tree)}
        if {get_object_id(one) for one in objects} != announced:
            raise RefusedError(
                "a whole reply holds all the objects that it announces, and no other"
            )
        return request, objects

    def _claim(self, session: "Session", node_id: int) -> Any:
        from flwr.supercore.state.schema.linkstate_models import MessageIns
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import select, update

        oldest = (
            select(MessageIns.message_id)
            .where(MessageIns.dst_node_id == uint64_to_int64(node_id))
            .where(MessageIns.delivered_at == "")
            .where(MessageIns.created_at + MessageIns.ttl > time.time())
            .order_by(MessageIns.created_at, MessageIns.message_id)
            .limit(1)
        )
        claim = (
            update(MessageIns)
            .where(MessageIns.message_id == oldest.scalar_subquery())
            .values(delivered_at=datetime.now(timezone.utc).isoformat())
            .returning(MessageIns)
        )
        return session.scalar(claim)

    def _objects(
        self, session: "Session", root: str, most_bytes: int
    ) -> "tuple[ObjectTree, Sequence[bytes]]":
        """Return what a question consists of; its content is read once for all robots."""
        from flwr.proto.message_pb2 import ObjectTree

        below, own = self._children(session, root), self._bytes(session, [root])
        ids, parts = list[str](), list[bytes]()
        trees = []
        for content in below:
            known = self._contents.get(content)
            if known is None:
                parts_of = (content, *self._children(session, content))
                stored = self._bytes(session, parts_of)
                known = parts_of, tuple(stored[one] for one in parts_of)
                if sum(map(len, known[1])) > MOST_WHOLE_BYTES:
                    raise _NotWholeError
                self._contents[content] = known
                if len(self._contents) > MOST_CONTENTS:
                    self._contents.popitem(last=False)
            if sum(map(len, known[1])) > most_bytes:
                raise _NotWholeError
            children = [ObjectTree(object_id=one) for one in known[0][1:]]
            trees.append(ObjectTree(object_id=content, children=children))
            ids += known[0]
            parts += known[1]
        return ObjectTree(object_id=root, children=trees), (own[root], *parts)

    def _children(self, session: "Session", parent: str) -> Sequence[str]:
        from flwr.supercore.state.schema.objectstore_models import ObjectChild
        from sqlalchemy import select

        query = select(ObjectChild.child_id).where(ObjectChild.parent_id == parent)
        return [str(one) for one in session.scalars(query)]

    def _bytes(self, session: "Session", ids: Sequence[str]) -> Mapping[str, bytes]:
        """Return id -> bytes; raises _NotWholeError if one is not stored."""
        from flwr.supercore.state.schema.objectstore_models import StoredObject
        from sqlalchemy import select

        query = select(StoredObject.object_id, StoredObject.content).where(
            StoredObject.object_id.in_(ids), StoredObject.is_available == 1
        )
        found = {str(name): content or b"" for name, content in session.execute(query)}
        if len(found) != len(set(ids)):
            raise _NotWholeError
        return found

    def _store(self, session: "Session", reply: "Message", content: bytes) -> None:
        from flwr.server.superlink.linkstate.utils import message_to_dict
        from flwr.supercore.state.schema.linkstate_models import MessageRes
        from flwr.supercore.state.schema.objectstore_models import RunObject, StoredObject
        from flwr.supercore.utils import uint64_to_int64

        row = message_to_dict(reply)
        for name in ("run_id", "src_node_id", "dst_node_id"):
            row[name] = uint64_to_int64(row[name])
        root, insert = row["message_id"], self._state.dialect_insert
        session.execute(insert(MessageRes).values(row).on_conflict_do_nothing())
        whole = {"object_id": root, "content": content, "is_available": 1, "ref_count": 0}
        session.execute(
            insert(StoredObject)
            .values(whole)
            .on_conflict_do_update(  # half of it came by Flower's way
                index_elements=[StoredObject.object_id],
                set_={"content": content, "is_available": 1},
            )
        )
        owner = {"run_id": row["run_id"], "object_id": root}
        session.execute(insert(RunObject).values(owner).on_conflict_do_nothing())


class _NotWholeError(Exception):
    """A question cannot be handed out whole."""
