"""A robot reaches its own messages only, and speaks for nobody but itself.

Flower 1.41 checks that a request's node id belongs to the key that signed it, and stops there. An
admitted robot could send a message to another robot in the server's name (with weights of its
choice), answer for another robot, read whatever object of the run it can name, and delete other
robots' messages. (Reproduced in tests/cloud_server/web/test_ownership.py.)
"""

import asyncio
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from cloud_server.flower.flower_state import FlowerState
from cloud_server.flower.object_trees import listed, message_id
from cloud_server.robots.refused_answers import Why
from cloud_server.web.reply_bound import ReplyBound
from cloud_server.web.transfers import Message, Receive, Send
from fleet_model.errors import RefusedError

MAX_NODES = 256  # whose objects are remembered: about 100 kB each for a model of 500 tensors
MAX_UPLOADS = 4096  # whose bytes are counted: the latest
MAX_ANSWERS = 1 << 15  # first answers that are remembered, the latest: a few MB
INTERNALS = (  # as in edge_agent/link/flower_connection.py, for the contract test
    "flwr.proto.fleet_pb2:PushMessagesRequest",
    "flwr.proto.message_pb2:ConfirmMessageReceivedRequest",
    "flwr.proto.message_pb2:PullObjectRequest",
    "flwr.proto.message_pb2:PushObjectRequest",
    "flwr.supercore.state.schema.corestate_models:ObjectPushSessionRoot",
    "flwr.supercore.state.schema.linkstate_models:MessageIns",
    "flwr.supercore.state.schema.linkstate_models:MessageRes",
    "flwr.supercore.state.schema.objectstore_models:ObjectChild",
    "flwr.supercore.state.schema.objectstore_models:StoredObject",
    "flwr.supercore.utils:uint64_to_int64",
)


class Ownership:
    """ASGI middleware directly around Flower's handlers: the signature has been checked."""

    def __init__(self, app: Any, records: "Records") -> None:
        self._app = app
        self._records = records

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse what belongs to another robot with 403."""
        request = scope.get("state", {}).get("protobuf_request")
        # Flower's runtime API, the operator's, has requests of the same types.
        if scope.get("path", "").startswith("/v1/fleet/") and self._records.concerns(request):
            try:
                await asyncio.to_thread(self._records.require_own, request)
            except RefusedError as error:
                await _refuse(send, str(error))
                return
        await self._app(scope, receive, send)


def add_ownership(
    app: Any, bound: Callable[[], ReplyBound], refused: Callable[[int, Why], None]
) -> "Records":
    """Put the check around Flower's handlers, inside everything that Flower does before; return it.

    A reply beyond `bound`, in all its requests, is cut off: it would fill the database, the disk,
    and then memory, before anybody could judge it. `refused` is told the node id of whoever sends
    an answer that is not taken: else nobody but the robot is told.
    """
    from starlette.middleware import Middleware

    records = Records(app.state.linkstate_factory.state(), bound, refused)
    app.user_middleware.append(Middleware(Ownership, records=records))
    return records


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A message to a robot, as far as Flower still knows it."""

    is_open: bool  # whether it can still be answered
    held: str | None  # id of its reply
    is_whole: bool  # that reply, with all its objects


GONE = _Question(is_open=False, held=None, is_whole=False)


class Records:
    """Asks Flower's SQLite state whose a message or an object is."""

    def __init__(
        self, state: Any, bound: Callable[[], ReplyBound], refused: Callable[[int, Why], None]
    ) -> None:
        self._state = state
        self._messages = FlowerState(state)
        self._bound = bound
        self._refused = refused
        # Each request is checked in a thread of its own: what follows is changed under the lock.
        self._lock = threading.Lock()
        # Robot and question -> its first answer, as hashes: what is unknown here is of any length.
        self._answers: OrderedDict[int, int] = OrderedDict()
        self._uploaded: OrderedDict[str, int] = OrderedDict()  # session id -> bytes
        self._objects: OrderedDict[int, frozenset[str]] = OrderedDict()  # node id -> may be pulled
        self._checks: Mapping[str, Callable[[Any, int], None]] = {
            "PushMessagesRequest": self._require_own_reply,
            "PushObjectRequest": self._require_own_upload,
            "PullObjectRequest": self._require_own_object,
            "ConfirmMessageReceivedRequest": self._require_own_message,
        }

    def concerns(self, request: Any) -> bool:
        """Return whether a request names a message or an object: polls and heartbeats do not."""
        return type(request).__name__ in self._checks

    def require_own(self, request: Any) -> None:
        """Raise RefusedError if a request of the fleet API touches what is not its node's."""
        self._checks[type(request).__name__](request, request.node.node_id)

    def require_own_whole(self, request: Any) -> None:
        """Raise RefusedError if a reply that came whole is not its node's; it registers nothing."""
        self._require_own_message_id(request, request.node.node_id)
        self._note_reply(request, request.node.node_id)

    def _require_own_message_id(self, request: Any, node_id: int) -> None:
        replies, trees = request.messages_list, request.message_object_trees
        if len(replies) != 1 or len(trees) != 1:
            raise RefusedError("expected one reply with its objects")
        try:
            self._bound().require(request)
        except RefusedError:
            self._refused(node_id, "large")
            raise
        metadata = replies[0].metadata
        if metadata.src_node_id != node_id or trees[0].object_id != metadata.message_id:
            raise RefusedError("a robot speaks for itself only")
        if metadata.message_id != message_id(replies[0], trees[0]):
            self._refuse_name(node_id)

    def _refuse_name(self, node_id: int) -> NoReturn:
        self._refused(node_id, "misnamed")
        raise RefusedError("an object of a reply is another's, or is not named by its content")

    def _require_own_reply(self, request: Any, node_id: int) -> None:
        self._require_own_message_id(request, node_id)
        tree = listed(request.message_object_trees[0])
        if self._holds_a_message(tree):
            self._refuse_name(node_id)
        self._note_reply(request, node_id)
        self._messages.claim(tree)
        request.message_object_trees[0].CopyFrom(tree)  # so Flower registers it

    def _note_reply(self, request: Any, node_id: int) -> None:
        metadata = request.messages_list[0].metadata
        asked, reply = metadata.reply_to_message_id, metadata.message_id
        question = self._question(asked, node_id)
        # Not known (any more): Flower says so itself, but stores nothing that is no reply.
        if question is None and (not asked or self._exists(asked)):
            raise RefusedError("a robot answers messages to itself only")
        with self._lock:
            why = self._why_refused(hash((node_id, asked)), reply, question or GONE)
        if why:
            self._refused(node_id, why)

    def _holds_a_message(self, tree: Any) -> bool:
        """Whether a message is among the parts of a reply; what the server asks may be.

        Children that are known of the server's contents are added to them.
        """
        from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes
        from flwr.supercore.state.schema.objectstore_models import ObjectChild
        from sqlalchemy import select

        parts = {part.object_id: part for part in tree.children}
        known = select(ObjectChild.parent_id, ObjectChild.child_id)
        messages = select(MessageIns.message_id).where(MessageIns.message_id.in_(parts))
        replies = select(MessageRes.message_id).where(MessageRes.message_id.in_(parts))
        with self._state.session() as session:
            for parent, child in session.execute(known.where(ObjectChild.parent_id.in_(parts))):
                parts[parent].children.add(object_id=child)
            return session.scalar(messages.union(replies).limit(1)) is not None

    def _why_refused(self, key: int, reply: str, question: _Question) -> Why | None:
        """Return why Flower will not take a reply, given the one that it holds.

        The round loop deletes a question with its answer, so first answers are remembered here: the
        same that is sent once more, because what we said was lost, is no second answer. Nobody can
        tell it from a replay, so both are told in words that are true of both. After a restart it
        passes for a late one.
        """
        held = question.held
        first = self._answers.get(key) if held is None else hash(held)
        if first is None or (question.is_open and held is None):  # a new process may answer anew
            self._answers[key] = hash(reply)
            if len(self._answers) > MAX_ANSWERS:
                self._answers.popitem(last=False)
            return None if question.is_open else "late"
        if first != hash(reply):
            return "again"
        if held is None or question.is_whole:
            return "repeated"
        return None if question.is_open else "late"  # it comes to send what is missing

    def _question(self, message_id: str, node_id: int) -> _Question | None:
        """Return what is known of a message to a node."""
        from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes
        from flwr.supercore.state.schema.objectstore_models import StoredObject
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import select

        query = (
            select(
                MessageIns.created_at + MessageIns.ttl,
                MessageRes.message_id,
                StoredObject.is_available,  # robots send the root last
            )
            .outerjoin(MessageRes, MessageRes.reply_to_message_id == MessageIns.message_id)
            .outerjoin(StoredObject, StoredObject.object_id == MessageRes.message_id)
            .where(MessageIns.message_id == message_id)
            .where(MessageIns.dst_node_id == uint64_to_int64(node_id))
        )
        with self._state.session() as session:
            row = session.execute(query).first()
        if row is None:
            return None
        return _Question(is_open=row[0] > time.time(), held=row[1], is_whole=row[2] == 1)

    def _require_own_upload(self, request: Any, node_id: int) -> None:
        from flwr.supercore.state.schema.corestate_models import ObjectPushSessionRoot as Root
        from flwr.supercore.state.schema.linkstate_models import MessageRes
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import select

        owners = (
            select(MessageRes.src_node_id)
            .join(Root, Root.root_object_id == MessageRes.message_id)
            .where(Root.session_id == request.session_id)
        )
        with self._state.session() as session:
            found = set(session.scalars(owners))
        if not request.session_id or found - {uint64_to_int64(node_id)}:
            raise RefusedError("a robot uploads to its own replies only")
        with self._lock:
            sent = self._uploaded.pop(request.session_id, 0) + len(request.object_content)
            self._uploaded[request.session_id] = sent
            if len(self._uploaded) > MAX_UPLOADS:
                self._uploaded.popitem(last=False)
        if sent > (most := self._bound().content_bytes):
            self._refused(node_id, "large")
            raise RefusedError(f"a reply is longer than {most} bytes")

    def _require_own_object(self, request: Any, node_id: int) -> None:
        known = self._objects.get(node_id, frozenset())
        if request.object_id not in known:
            known = self._objects_for(node_id)
            with self._lock:
                self._objects[node_id] = known
                if len(self._objects) > MAX_NODES:
                    self._objects.popitem(last=False)
        if request.object_id not in known and request.object_id in self._state.object_store:
            raise RefusedError("a robot pulls objects of its own messages only")

    def _require_own_message(self, request: Any, node_id: int) -> None:
        message_id = request.message_object_id
        if not self._is_for(message_id, node_id) and message_id in self._state.object_store:
            raise RefusedError("a robot confirms its own messages only")

    def _is_for(self, message_id: str, node_id: int) -> bool:
        from flwr.supercore.state.schema.linkstate_models import MessageIns
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import select

        wanted = (
            MessageIns.message_id == message_id,
            MessageIns.dst_node_id == uint64_to_int64(node_id),
        )
        with self._state.session() as session:
            return session.scalar(select(MessageIns.message_id).where(*wanted)) is not None

    def _exists(self, message_id: str) -> bool:
        from flwr.supercore.state.schema.linkstate_models import MessageIns
        from sqlalchemy import select

        one = select(MessageIns.message_id).where(MessageIns.message_id == message_id)
        with self._state.session() as session:
            return session.scalar(one) is not None

    def _objects_for(self, node_id: int) -> frozenset[str]:
        """Return the ids of all objects under the messages to a node."""
        from flwr.supercore.state.schema.linkstate_models import MessageIns
        from flwr.supercore.state.schema.objectstore_models import ObjectChild
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import select

        found: set[str] = set()
        mine = select(MessageIns.message_id).where(
            MessageIns.dst_node_id == uint64_to_int64(node_id)
        )
        with self._state.session() as session:
            level = {str(one) for one in session.scalars(mine)}
            while level:
                found |= level
                below = select(ObjectChild.child_id).where(ObjectChild.parent_id.in_(level))
                level = set(session.scalars(below)) - found
        return frozenset(found)


async def _refuse(send: Send, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
