"""The round loop's hands on a SuperLink inside this process: no network between.

The robots' side is edge_agent/link/flower_connection.py. Flower is imported at the first call.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloud_server.flower.flower_state import FlowerState, Question
from cloud_server.flower.flower_superlink import stock_fab
from cloud_server.flower.questions import ask
from cloud_server.flower.whole_messages import contents_of
from fleet_model.errors import RoundError
from fleet_model.memory import give_back
from fleet_model.protocol.outcome import NO_REPLY, NOT_ADMITTED, Outcome, unpack_failure

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from fastapi import FastAPI
    from flwr.app import RecordDict

log = logging.getLogger(__name__)
# A node is online until 60 s after its last heartbeat. A robot that stays away for this much longer
# is not waited for: most come back from a dead spot or a restart sooner.
GONE_S = 120.0
# Replies of one look are in memory together; one is always taken.
MAX_PULL_BYTES = 16 << 20
LARGE_BYTES = 1 << 20
HOPELESS_S = 1.0  # between looks at all questions: thousands are open while few have an answer
JUMP_S = 2.0  # a clock that is kept right by small steps needs nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerRun:
    """What names a run inside Flower; enough to take it up again in another process."""

    run_id: int
    task_id: int


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Arrived:
    """A whole reply. Its sender is taken from the server's records; its content is not trusted."""

    message_id: str  # of the message that it answers
    node_id: int  # that was asked; 0 if nothing is known of the message any more
    content: "RecordDict | Outcome"  # the outcome: why there are no records


class LinkGrid:
    """The round loop's hands on an embedded SuperLink: nodes, runs, messages; no network.

    Questions and replies are kept in Flower's SQLite file until they are settled, so a process that
    is killed finds them again. One run at a time, because Flower keeps the identity of a task per
    process, and one thread that asks; nodes may be changed from any thread.
    """

    def __init__(
        self,
        app: "FastAPI",
        now: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state: Any = app.state.linkstate_factory.state()
        self._messages = FlowerState(self._state)
        self._now, self._steady = now, steady
        self._ahead = now() - steady()
        self._began_at = now()
        self.is_unpacking = False  # a reply, which is in memory twice over while it is
        self._run = FlowerRun(run_id=0, task_id=0)
        self._all_looked_at = float("-inf")  # steady: for questions that nobody will answer
        self._handed: set[str] = set()  # messages whose replies were returned last
        self._unknown: set[str] = set()  # messages of a process before, that none has spoken of

    def heal(self, most_objects: int) -> None:
        """Remove what only an older version would have let in; before anything else is done."""
        if dropped := self._messages.heal(most_objects):
            log.warning(
                "%d objects of replies that were too large, or of nobody, are removed from %s",
                dropped, "flower/state.db",
            )  # fmt: skip

    def register(self, public_key: "ec.EllipticCurvePublicKey", name: str) -> int:
        """Admit a robot's key; return its node id. A key that was here before keeps its id."""
        from flwr.common.constant import (
            HEARTBEAT_DEFAULT_INTERVAL,
            NOOP_ACCOUNT_NAME,
            NOOP_FLWR_AID,
        )
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes

        key = public_key_to_bytes(public_key)
        self._readmit(key)
        known = self._state.get_node_id_by_public_key(key)
        if known is not None:
            return int(known)
        return int(
            self._state.create_node(
                NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, HEARTBEAT_DEFAULT_INTERVAL, name=name
            )
        )

    def registered(self) -> dict[int, bytes]:
        """Return node id -> public key (PEM as Flower stores it) of every admitted robot."""
        return {int(i.node_id): bytes(i.public_key) for i in self._nodes(None)}

    def unregister(self, node_id: int) -> None:
        """Forget a robot: its next request is refused."""
        from flwr.common.constant import NOOP_FLWR_AID

        self._state.delete_node(NOOP_FLWR_AID, node_id)

    def begin_session(self, node_id: int) -> None:
        """End what is left of a robot's session, so that its new process may come in at once.

        What it has been asked and has not answered is handed out again.
        """
        self._state.deactivate_node(node_id)
        self._messages.deliver_again(node_id)

    def online(self) -> set[int]:
        """Return the node ids that have sent a heartbeat lately."""
        from flwr.supercore.constant import NodeStatus

        self._follow_clock()
        return {int(info.node_id) for info in self._nodes([NodeStatus.ONLINE])}

    def open_run(self, resume: FlowerRun | None = None) -> FlowerRun:
        """Start a Flower run whose ServerApp is the caller; ends with `close_run`.

        Args:
            resume: a run of a process before this one. It is taken up if it has not ended: what
                was asked in it can still be answered. Else a new one is started.
        """
        from flwr.common.constant import SUPERLINK_NODE_ID, Status, SubStatus
        from flwr.supercore.task_identity import TaskIdentity

        self._follow_clock()
        unfinished = self._state.get_tasks(
            statuses=[Status.PENDING, Status.STARTING, Status.RUNNING]
        )
        for task in unfinished:  # of processes that died before they could say what they began
            if resume is None or task.task_id != resume.task_id:
                self._state.finish_task(task.task_id, SubStatus.FAILED, "")
                self._messages.forget(task.run_id)
        alive = resume is not None and resume.task_id in {task.task_id for task in unfinished}
        self._run = resume if resume is not None and alive else self._start()
        TaskIdentity.task_id, TaskIdentity.run_id = self._run.task_id, self._run.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._handed.clear()
        self._unknown = self._messages.unseen(self._run.run_id)
        return self._run

    def close_run(self, *, completed: bool) -> None:
        """End the run; robots that still work on it are told at their next call."""
        from flwr.common.constant import SubStatus

        status = SubStatus.COMPLETED if completed else SubStatus.FAILED
        self._state.finish_task(self._run.task_id, status, "")
        self._messages.forget(self._run.run_id)

    def push(
        self,
        content: "RecordDict",
        node_ids: Sequence[int],
        ttl_s: float,
        message_type: str = "train",
    ) -> dict[str, int]:
        """Send the same content to nodes; return message id -> node id of those accepted.

        What a process that was killed has sent and did not write down is withdrawn first.
        """
        self._follow_clock()
        run_id = self._run.run_id
        self._messages.settle(run_id, self._unknown)
        self._unknown.clear()
        self._messages.sweep(run_id, self._now())
        return ask(self._state, self._messages, run_id, content, node_ids, ttl_s, message_type)

    def pull(self, message_ids: Collection[str]) -> list[Arrived]:
        """Return replies that are complete, each one once; never waits for a robot.

        As many as fit into MAX_PULL_BYTES; the rest with the next calls. A call settles what the
        call before has returned: until then another process is given it again.
        """
        self._follow_clock()
        self._messages.settle(self._run.run_id, self._handed)
        self._handed.clear()
        replies = self._messages.arrived(self._run.run_id)
        looked_at = set(message_ids)
        if self._steady() - self._all_looked_at < HOPELESS_S:
            looked_at &= replies.keys()
        else:
            self._all_looked_at = self._steady()
        questions = self._messages.questions(self._run.run_id, looked_at) if looked_at else {}
        complete, total = [], 0
        for message_id in sorted(looked_at):
            arrived, size_bytes = self._look(
                message_id, questions.get(message_id), replies.get(message_id)
            )
            if arrived is not None:
                complete.append(arrived)
                self._handed.add(message_id)
            total += size_bytes
            if total >= MAX_PULL_BYTES:
                break
        return complete

    def still_open(self, message_ids: Collection[str]) -> set[str]:
        """Return those that can be answered, or are and were not returned yet."""
        self._follow_clock()
        run_id = self._run.run_id
        self._unknown -= set(message_ids)
        questions, replies = self._messages.questions(run_id), self._messages.answered(run_id)
        return {i for i in message_ids if i in replies or self._hopeless(questions.get(i)) is None}

    def _follow_clock(self) -> None:
        """Move the times of open questions with this machine's clock when that is set."""
        ahead = self._now() - self._steady()
        jump_s, self._ahead = ahead - self._ahead, ahead
        if abs(jump_s) >= JUMP_S:
            log.warning("this machine's clock was set by %+.0f s; open questions follow", jump_s)
            self._began_at += jump_s
            self._messages.shift(self._run.run_id, jump_s, self._now())

    def _look(
        self, message_id: str, question: Question | None, reply_id: str | None
    ) -> tuple[Arrived | None, int]:
        """Return what there is for a question, and its bytes; None while it may still come."""
        if question is not None and question.admitted and reply_id is not None:
            self.is_unpacking = True
            try:
                content, size_bytes = self._unpack(reply_id)
                if size_bytes > LARGE_BYTES:
                    give_back()
            finally:
                self.is_unpacking = False
            if content is not None:
                node_id = question.node_id
                return Arrived(message_id=message_id, node_id=node_id, content=content), size_bytes
        if (lost := self._hopeless(question)) is None:
            return None, 0
        node_id = question.node_id if question is not None else 0
        return Arrived(message_id=message_id, node_id=node_id, content=lost), 0

    def _hopeless(self, question: Question | None) -> Outcome | None:
        """Return why no reply will come any more, None while one may."""
        if question is None or question.expires_at <= self._now():
            return NO_REPLY
        if not question.admitted:
            return NOT_ADMITTED
        # While this process was away, nobody could send a heartbeat.
        away_s = self._now() - max(question.online_until, self._began_at)
        return Outcome("offline", f" within {GONE_S:.0f} s") if away_s > GONE_S else None

    def _unpack(self, reply_id: str) -> "tuple[RecordDict | Outcome | None, int]":
        """Return what a reply holds, None while it is still coming, and its bytes."""
        from flwr.app import RecordDict
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

        reply = self._messages.reply(reply_id)
        if reply is None:
            return None, 0
        if reply.has_error():
            return unpack_failure(reply.error.code, reply.error.reason or ""), 0
        try:
            contents = self._contents(reply_id)
            if contents is None:
                return None, 0
            size_bytes = sum(map(len, contents.values()))  # inflating lets go of them
            message: Any = inflate_object_from_contents(reply_id, contents)
            content = message.content
            if not isinstance(content, RecordDict):
                raise TypeError(f"content is {type(content).__name__}")
        except KeyError:
            return Outcome("refused", "the reply holds more objects than it has announced"), 0
        except Exception as error:  # robots are not trusted: one bad reply must not end the round
            log.warning("unreadable reply", exc_info=True)
            return Outcome("failed", f"unreadable reply ({type(error).__name__})"), 0
        return content, size_bytes

    def _contents(self, root: str) -> dict[str, bytes] | None:
        """Return object id -> bytes of a whole tree, or None while one is missing."""
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
        from flwr.supercore.object_store import NoObjectInStoreError

        if (
            whole := contents_of(self._state.get_object(self._run.run_id, root) or b"")
        ) is not None:
            return whole
        contents: dict[str, bytes] = {}
        try:
            tree = self._state.object_store.get_object_tree(root)
        except NoObjectInStoreError:  # Flower has given up waiting: the robot may send it again
            return None
        for item in reversed(list(iterate_object_tree(tree))):  # robots send the root last
            content = self._state.get_object(self._run.run_id, item.object_id)
            if not content:
                return None
            contents[item.object_id] = content
        return contents

    def _start(self) -> FlowerRun:
        from flwr.common.constant import NOOP_FLWR_AID
        from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType

        fab_hash = self._state.store_fab(stock_fab())
        run_id = self._state.create_run(
            "fleetlearn/fleetlearn", "1.0.0", fab_hash, {}, NOOP_FEDERATION_ID, None,
            NOOP_FLWR_AID, TaskType.SERVER_APP,
        )  # fmt: skip
        (run,) = self._state.get_run_info(run_ids=[run_id])
        task_id = run.primary_task_id
        if not self._state.claim_task(task_id) or not self._state.activate_task(task_id):
            raise RoundError("Flower did not start the run; restart the server")
        self._messages.never_expire(task_id)
        return FlowerRun(run_id=int(run_id), task_id=int(task_id))

    def _readmit(self, key: bytes) -> None:
        """Undo `unregister`: Flower keeps the key of a forgotten node and never takes it again."""
        from flwr.supercore.constant import NodeStatus
        from flwr.supercore.state.schema.linkstate_models import Node
        from sqlalchemy import update

        gone = (Node.public_key == key, Node.status == NodeStatus.UNREGISTERED)
        with self._state.session() as session:
            session.execute(update(Node).where(*gone).values(status=NodeStatus.REGISTERED))

    def _nodes(self, statuses: Sequence[str] | None) -> Any:
        from flwr.supercore.constant import NodeStatus

        alive = [NodeStatus.REGISTERED, NodeStatus.ONLINE, NodeStatus.OFFLINE]
        return self._state.get_node_info(statuses=statuses or alive)
