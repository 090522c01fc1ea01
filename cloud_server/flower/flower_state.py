"""What Flower's SQLite state must keep over a restart, and its own calls would lose.

Flower's calls hand a message out once and forget it, drop the reply of a robot that went offline
after it had sent it, and fail a run whose server was away for a minute. All of that is in a few
columns, which are read and written here; the tables are those of flwr 1.41 and 1.42.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from cloud_server.flower.object_trees import question_tree
from cloud_server.flower.questions import drop_trees

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.proto.message_pb2 import ObjectTree

ONLINE_S = 90.0  # a heartbeat keeps a robot online for 60 s
FEW = 500  # ids in one query
FAR = datetime(2200, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One message to one robot that has not been settled."""

    node_id: int
    expires_at: float  # Unix time
    admitted: bool  # whether its robot still is
    online_until: float  # Unix time; 0: it has never been online


class FlowerState:
    """Messages and their objects in the tables of one link state. Thread-safe, as the state is."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def never_expire(self, task_id: int) -> None:
        """Let a task live on without heartbeats: a server that is away must not fail its run."""
        from flwr.supercore.state.schema.corestate_models import Task
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import update

        mine = Task.task_id == uint64_to_int64(task_id)
        with self._state.session() as session:
            session.execute(update(Task).where(mine).values(active_until=FAR))

    def keep_whole(self, message_ids: Collection[str]) -> None:
        """Keep the objects of messages when their robot has confirmed them: it may die then.

        An object that is referred to is not deleted; `settle` and `forget` drop the reference.
        """
        from flwr.supercore.state.schema.objectstore_models import StoredObject
        from sqlalchemy import update

        roots = StoredObject.object_id.in_(message_ids)
        with self._state.session() as session:
            session.execute(update(StoredObject).where(roots).values(ref_count=1))

    def store(
        self, message: "Message", tree: "ObjectTree", session_id: str
    ) -> tuple[bool, list[str]]:
        """Store a question without its content; return whether, and which objects are missing.

        Whatever robots have announced before, in one step with them: they never come between.
        """
        with self._state.session():
            self.claim(tree := question_tree(tree))
            stored, missing = self._state.store_message_and_object_tree(message, tree, session_id)
            return bool(stored), list(missing)

    def claim(self, tree: "ObjectTree") -> None:
        """Forget objects that were announced with other children than in a tree that is true."""
        from flwr.supercore.state.schema.objectstore_models import ObjectChild
        from sqlalchemy import select

        with self._state.session() as session:
            for item in (tree, *tree.children):
                below = select(ObjectChild.child_id).where(ObjectChild.parent_id == item.object_id)
                children = {child.object_id for child in item.children}
                if children and children != set(session.scalars(below)):
                    self._drop([item.object_id])

    def questions(
        self, run_id: int, message_ids: Collection[str] | None = None
    ) -> dict[str, Question]:
        """Return message id -> question of a run; of a few ids only these are looked at."""
        from flwr.supercore.constant import NodeStatus
        from flwr.supercore.state.schema.linkstate_models import MessageIns, Node
        from flwr.supercore.utils import int64_to_uint64, uint64_to_int64
        from sqlalchemy import select

        query = (
            select(
                MessageIns.message_id,
                MessageIns.dst_node_id,
                MessageIns.created_at + MessageIns.ttl,
                Node.status,
                Node.online_until,
            )
            .outerjoin(Node, Node.node_id == MessageIns.dst_node_id)
            .where(MessageIns.run_id == uint64_to_int64(run_id))
        )
        if message_ids is not None and len(message_ids) <= FEW:
            query = query.where(MessageIns.message_id.in_(message_ids))
        with self._state.session() as session:
            return {
                str(message_id): Question(
                    node_id=int64_to_uint64(node_id),
                    expires_at=float(expires_at),
                    admitted=status is not None and status != NodeStatus.UNREGISTERED,
                    online_until=float(online_until or 0.0),
                )
                for message_id, node_id, expires_at, status, online_until in session.execute(query)
            }

    def answered(self, run_id: int) -> dict[str, str]:
        """Return message id -> id of its reply, whether that is complete or not."""
        from flwr.supercore.state.schema.linkstate_models import MessageRes
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import select

        mine = MessageRes.run_id == uint64_to_int64(run_id)
        query = select(MessageRes.reply_to_message_id, MessageRes.message_id).where(mine)
        with self._state.session() as session:
            return {str(asked): str(reply) for asked, reply in session.execute(query)}

    def arrived(self, run_id: int) -> dict[str, str]:
        """Return message id -> id of its reply where the root of that is here.

        Robots send the root last: the others are not worth a look at each of their objects, which
        would make the robots that send them wait.
        """
        from flwr.supercore.state.schema.linkstate_models import MessageRes
        from flwr.supercore.state.schema.objectstore_models import StoredObject
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import select

        query = (
            select(MessageRes.reply_to_message_id, MessageRes.message_id)
            .join(StoredObject, StoredObject.object_id == MessageRes.message_id)
            .where(MessageRes.run_id == uint64_to_int64(run_id), StoredObject.is_available == 1)
        )
        with self._state.session() as session:
            return {str(asked): str(reply) for asked, reply in session.execute(query)}

    def reply(self, reply_id: str) -> "Message | None":
        """Return a reply without its content; None if it was withdrawn meanwhile."""
        from flwr.server.superlink.linkstate.utils import dict_to_message
        from flwr.supercore.state.schema.linkstate_models import MessageRes
        from flwr.supercore.utils import int64_to_uint64
        from sqlalchemy import select

        with self._state.session() as session:
            row = session.scalar(select(MessageRes).where(MessageRes.message_id == reply_id))
            if row is None:
                return None
            fields = {column.name: getattr(row, column.name) for column in row.__table__.columns}
        for name in ("run_id", "src_node_id", "dst_node_id"):
            fields[name] = int64_to_uint64(fields[name])
        return dict_to_message(fields)

    def settle(self, run_id: int, message_ids: Collection[str]) -> None:
        """Delete messages, their replies and the objects of both."""
        answered = self.answered(run_id)
        roots = {*message_ids, *(answered[i] for i in message_ids if i in answered)}
        with self._state.session():
            self._state.delete_messages(message_ins_ids=set(message_ids))
            self._drop(roots)

    def sweep(self, run_id: int, now: float) -> None:
        """Delete what nobody can answer or ask for any more: it would pile up while a run lasts."""
        from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes
        from flwr.supercore.state.schema.objectstore_models import ObjectChild, RunObject
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import select

        replied = self.answered(run_id)
        expired = [
            message_id
            for message_id, question in self.questions(run_id).items()
            if question.expires_at <= now and message_id not in replied
        ]
        self.settle(run_id, expired)
        orphans = (
            select(RunObject.object_id)
            .where(RunObject.run_id == uint64_to_int64(run_id))
            .where(RunObject.object_id.not_in(select(ObjectChild.child_id)))
            .where(RunObject.object_id.not_in(select(MessageIns.message_id)))
            .where(RunObject.object_id.not_in(select(MessageRes.message_id)))
        )
        with self._state.session() as session:
            self._drop(list(session.scalars(orphans)))

    def forget(self, run_id: int) -> None:
        """Delete every message and object of a run."""
        self.settle(run_id, self.questions(run_id).keys())
        self.sweep(run_id, 0.0)
        self._state.cleanup_run(run_id)

    def deliver_again(self, node_id: int) -> None:
        """Hand a node what it has not answered once more: its process is a new one.

        Half a reply of the old process is deleted: it would stand in the way of the new one's.
        """
        from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes
        from flwr.supercore.state.schema.objectstore_models import StoredObject
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import delete, select, update

        node = uint64_to_int64(node_id)
        half = (  # robots send the root of a reply last
            select(MessageRes.message_id)
            .join(StoredObject, StoredObject.object_id == MessageRes.message_id)
            .where(MessageRes.src_node_id == node, StoredObject.is_available == 0)
        )
        unanswered = MessageIns.message_id.not_in(select(MessageRes.reply_to_message_id))
        with self._state.session() as session:
            replies = list(session.scalars(half))
            session.execute(delete(MessageRes).where(MessageRes.message_id.in_(replies)))
            self._drop(replies)
            session.execute(
                update(MessageIns)
                .where(MessageIns.dst_node_id == node, unanswered)
                .values(delivered_at="")
            )

    def shift(self, run_id: int, seconds: float, now: float) -> None:
        """Move when questions of a run were asked, and until when robots are online.

        Robots that have sent a heartbeat since the clock was set are right as they are.
        """
        from flwr.supercore.state.schema.linkstate_models import MessageIns, Node
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import or_, update

        mine = MessageIns.run_id == uint64_to_int64(run_id)
        old = or_(Node.online_until < now, Node.online_until > now + ONLINE_S)
        asked, online = MessageIns.created_at + seconds, Node.online_until + seconds
        with self._state.session() as session:
            session.execute(update(MessageIns).where(mine).values(created_at=asked))
            session.execute(update(Node).where(old).values(online_until=online))

    def heal(self, most_objects: int) -> int:
        """Delete replies of more objects, and objects of no message; return how many.

        In a few statements however many there are: Flower deletes one by one, for minutes. What
        stays is registered as this version does; see object_trees.
        """
        from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes
        from flwr.supercore.state.schema.objectstore_models import (
            ObjectChild,
            RunObject,
            StoredObject,
        )
        from sqlalchemy import delete, func, select

        def below(roots: Any) -> Any:
            tree = roots.cte("tree", recursive=True)
            children = select(ObjectChild.child_id).join(tree, ObjectChild.parent_id == tree.c[0])
            return tree.union(children)  # each object once, also in a circle

        with self._state.session() as session:
            for reply in list(session.scalars(select(MessageRes.message_id))):
                tree = below(select(StoredObject.object_id).where(StoredObject.object_id == reply))
                some = select(tree.c[0]).limit(most_objects + 1).subquery()
                if session.scalar(select(func.count()).select_from(some)) > most_objects:
                    session.execute(delete(MessageRes).where(MessageRes.message_id == reply))
            asked, replied = select(MessageIns.message_id), select(MessageRes.message_id)
            alive = below(asked.union(replied).subquery().select())
            of_nobody = StoredObject.object_id.not_in(select(alive.c[0]))
            found = int(session.scalar(select(func.count()).where(of_nobody)) or 0)
            if found:
                for table, column in (
                    (ObjectChild, ObjectChild.parent_id), (RunObject, RunObject.object_id),
                    (StoredObject, StoredObject.object_id),
                ):  # fmt: skip
                    session.execute(delete(table).where(column.not_in(select(alive.c[0]))))
            self._list_parts()
            return found

    def unseen(self, run_id: int) -> set[str]:
        """Return the messages that no robot has been handed."""
        from flwr.supercore.state.schema.linkstate_models import MessageIns
        from flwr.supercore.utils import uint64_to_int64
        from sqlalchemy import select

        mine = MessageIns.run_id == uint64_to_int64(run_id)
        query = select(MessageIns.message_id).where(mine, MessageIns.delivered_at == "")
        with self._state.session() as session:
            return {str(message_id) for message_id in session.scalars(query)}

    def _list_parts(self) -> None:
        """Register what lies deeper in trees of an older version, and count all references anew."""
        from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes
        from flwr.supercore.state.schema.objectstore_models import ObjectChild, StoredObject
        from sqlalchemy import delete, func, insert, select, update

        parent, child = ObjectChild.parent_id, ObjectChild.child_id
        questions, replies = select(MessageIns.message_id), select(MessageRes.message_id)
        tops = replies.union(select(child).where(parent.in_(questions)))
        deeper = select(parent).where(parent.not_in(questions), parent.not_in(tops))
        below = select(parent.label("top"), child.label("part")).where(parent.in_(tops))
        tree = below.cte(recursive=True)
        tree = tree.union(select(tree.c.top, child).join(tree, parent == tree.c.part))
        parts = select(tree.c.top.label("parent_id"), tree.c.part.label("child_id")).where(
            tree.c.top != tree.c.part, tree.c.part.not_in(replies)
        )
        count = select(func.count()).where(child == StoredObject.object_id).scalar_subquery()
        kept = StoredObject.object_id.in_(questions)  # see keep_whole
        with self._state.session() as session:
            if session.scalar(deeper.limit(1)) is None:
                return
            rows = [dict(row) for row in session.execute(parts).mappings()]
            session.execute(delete(ObjectChild).where(parent.not_in(questions)))
            session.execute(insert(ObjectChild), rows)
            session.execute(update(StoredObject).values(ref_count=count))
            session.execute(
                update(StoredObject).where(kept).values(ref_count=StoredObject.ref_count + 1)
            )

    def _drop(self, roots: Collection[str]) -> None:
        """Delete trees of objects, also those that are kept whole."""
        drop_trees(self._state, list(roots))
