"""Flower's internals: the only module that touches them (flwr 1.41).

Public Flower has no way to serve a SuperLink inside a program or to take part in a fleet without
executing code that the server sends. Both are small on top of what 1.41 has inside; the contract
test (tests/fleet_model/test_flower_compat.py) names the piece that moved when flwr changes.

Robot side: `FleetConnection`. Server side: `create_superlink`, `LinkGrid`. Nothing is imported
before one of them is used.
"""

import logging
import os
import ssl
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleet_model.errors import (
    ConnectionFailed,
    FleetError,
    RefusedError,
    RoundError,
    UpdateError,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from fastapi import FastAPI
    from flwr.app import Message, RecordDict

INTERNALS = (  # "module:name" of everything used here, for the contract test
    "flwr.app.message:remove_content_from_message",
    "flwr.cli.build:build_fab_from_files",
    "flwr.common.constant:HEARTBEAT_DEFAULT_INTERVAL",
    "flwr.common.constant:NOOP_ACCOUNT_NAME",
    "flwr.common.constant:NOOP_FLWR_AID",
    "flwr.common.constant:SUPERLINK_NODE_ID",
    "flwr.common.constant:SubStatus",
    "flwr.common.serde:message_from_proto",
    "flwr.common.serde:message_to_proto",
    "flwr.proto.fleet_pb2:ActivateNodeRequest",
    "flwr.proto.fleet_pb2:DeactivateNodeRequest",
    "flwr.proto.fleet_pb2:PullMessagesRequest",
    "flwr.proto.fleet_pb2:PushMessagesRequest",
    "flwr.proto.heartbeat_pb2:SendNodeHeartbeatRequest",
    "flwr.proto.message_pb2:ConfirmMessageReceivedRequest",
    "flwr.proto.message_pb2:PullObjectRequest",
    "flwr.proto.message_pb2:PushObjectRequest",
    "flwr.proto.node_pb2:Node",
    "flwr.supercore.constant:NOOP_FEDERATION_ID",
    "flwr.supercore.constant:NodeStatus",
    "flwr.supercore.constant:TaskType",
    "flwr.supercore.error:ApiErrorCode",
    "flwr.supercore.error:FlowerError",
    "flwr.supercore.fab:Fab",
    "flwr.supercore.inflatable.inflatable_object:get_all_nested_objects",
    "flwr.supercore.inflatable.inflatable_object:get_object_tree",
    "flwr.supercore.inflatable.inflatable_object:iterate_object_tree",
    "flwr.supercore.inflatable.inflatable_object:no_object_id_recompute",
    "flwr.supercore.inflatable.inflatable_utils:inflate_object_from_contents",
    "flwr.supercore.interceptors.http.runtime_version:RuntimeVersionHttpInterceptor",
    "flwr.supercore.primitives.asymmetric:bytes_to_public_key",
    "flwr.supercore.primitives.asymmetric:public_key_to_bytes",
    "flwr.supercore.run:RunNotRunningException",
    "flwr.supercore.state.schema.linkstate_models:Node",
    "flwr.supercore.task_identity:TaskIdentity",
    "flwr.superlink.auth_plugin:NoOpControlAuthnPlugin",
    "flwr.superlink.cli.flower_superlink:SuperLinkLifespan",
    "flwr.superlink.config_loader:SuperLinkLifespanConfig",
    "flwr.superlink.main:create_app",
    "flwr.supernode.fleet_http_client:FleetHttpClient",
    "flwr.supernode.node_auth_http_interceptor:NodeAuthHttpInterceptor",
)
log = logging.getLogger(__name__)
RUN_ENDED = "the run has ended on the server; this work is abandoned"
MAX_OBJECT_TRIES = 5  # an object that the server is still storing is asked for again
# Flower demands a ServerApp by name; nobody loads it: the server itself is the ServerApp.
STOCK_APP = b"""\
[project]
name = "fleetlearn"
version = "1.0.0"
description = "Thin app: names the ClientApp that the robot has installed"
license = "Apache-2.0"
dependencies = ["flwr>=1.41,<1.42"]
[tool.flwr.app]
publisher = "fleetlearn"
[tool.flwr.app.components]
serverapp = "cloud_server.server_app:app"
clientapp = "edge_agent.client_app:app"
"""


def quiet() -> None:
    """Keep Flower from calling home; call before flwr is imported."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")


# ------------------------------------------------------------------------------- robot side


class _Traffic:
    """Count payload bytes of every call, as a robot on a mobile plan would."""

    def __init__(self) -> None:
        self.up = self.down = 0

    def intercept(self, context: Any, call_next: Any) -> Any:
        self.up += len(context.request.content)
        response = call_next(context)
        self.down += len(response.content)
        return response


class FleetConnection:
    """Take part in a fleet: activate, receive messages, reply. Executes nothing it receives.

    Not thread-safe, except `heartbeat`, which may run in another thread.
    """

    def __init__(
        self, address: str, ca_pem: bytes, private_key: "ec.EllipticCurvePrivateKey"
    ) -> None:
        quiet()
        from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes
        from flwr.supernode.fleet_http_client import FleetHttpClient
        from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

        self._traffic = _Traffic()
        public_key = private_key.public_key()
        self._public = public_key_to_bytes(public_key)
        self._client = FleetHttpClient.from_server_address(
            address,
            insecure=False,
            root_certificates=ca_pem,
            interceptors=[
                self._traffic,
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(private_key, public_key),
            ],
        )
        self._node: Any = None

    @property
    def bytes_up(self) -> int:
        """Return payload bytes sent so far."""
        return self._traffic.up

    @property
    def bytes_down(self) -> int:
        """Return payload bytes received so far."""
        return self._traffic.down

    def activate(self) -> None:
        """Come online; raises RefusedError or ConnectionFailed."""
        from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
        from flwr.proto.fleet_pb2 import ActivateNodeRequest
        from flwr.proto.node_pb2 import Node

        request = ActivateNodeRequest(
            public_key=self._public, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        self._node = Node(node_id=self._call("ActivateNode", request).node_id)

    def heartbeat(self) -> bool:
        """Say that this robot is still here; False if the server has forgotten it."""
        from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
        from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest

        request = SendNodeHeartbeatRequest(
            node=self._node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        return bool(self._call("SendNodeHeartbeat", request).success)

    def receive(self) -> "Message | None":
        """Return the next message with its content, or None."""
        from flwr.proto.fleet_pb2 import PullMessagesRequest
        from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

        response = self._call("PullMessages", PullMessagesRequest(node=self._node))
        if not response.messages_list:
            return None
        run_id = response.messages_list[0].metadata.run_id
        tree = response.message_object_trees[0]
        contents: dict[str, bytes] = {}
        for item in iterate_object_tree(tree):
            request = PullObjectRequest(node=self._node, run_id=run_id, object_id=item.object_id)
            contents[item.object_id] = self._pull(request)
        confirm = ConfirmMessageReceivedRequest(
            node=self._node, run_id=run_id, message_object_id=tree.object_id
        )
        self._call("ConfirmMessageReceived", confirm)
        message: Any = inflate_object_from_contents(tree.object_id, contents)
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message  # type: ignore[no-any-return]

    def reply(self, message: "Message", seconds: float) -> None:
        """Send a reply that was made with `Message(..., reply_to=received)`.

        Raises:
            UpdateError: it comes too late; this work is lost, the session goes on.
            ConnectionFailed, RefusedError: the session has ended.
        """
        from flwr.app.message import remove_content_from_message
        from flwr.common.serde import message_to_proto
        from flwr.proto.fleet_pb2 import PushMessagesRequest
        from flwr.proto.message_pb2 import PushObjectRequest
        from flwr.supercore.inflatable.inflatable_object import (
            get_all_nested_objects,
            get_object_tree,
            no_object_id_recompute,
        )

        run_id = message.metadata.run_id
        message.metadata.__dict__["_message_id"] = message.object_id
        with no_object_id_recompute():
            objects = get_all_nested_objects(message)
            bare = remove_content_from_message(message) if message.has_content() else message
            response = self._call(
                "PushMessages",
                PushMessagesRequest(
                    node=self._node,
                    messages_list=[message_to_proto(bare)],
                    message_object_trees=[get_object_tree(message)],
                    clientapp_runtime_list=[seconds],
                ),
            )
            if not response.objects_to_push:  # a reply that is awaited always has a new object
                raise UpdateError("the server awaits this reply no longer: its time was over")
            for object_id in response.objects_to_push:
                request = PushObjectRequest(
                    node=self._node,
                    run_id=run_id,
                    session_id=response.session_id,
                    object_id=object_id,
                    object_content=objects[object_id].deflate(),
                )
                if not self._call("PushObject", request).stored:
                    raise ConnectionFailed("the server did not store the whole update")

    def close(self) -> None:
        """Go offline if the server can be reached; the connection is of no use afterwards."""
        from flwr.proto.fleet_pb2 import DeactivateNodeRequest

        if self._node is not None:
            with suppress(FleetError):  # else the server sees it when heartbeats stop
                self._call("DeactivateNode", DeactivateNodeRequest(node_id=self._node.node_id))
            self._node = None
        self._client.close()

    def _pull(self, request: Any) -> bytes:
        for attempt in range(MAX_OBJECT_TRIES):
            response = self._call("PullObject", request)
            if response.object_available:
                return bytes(response.object_content)
            if not response.object_found:
                break
            time.sleep(0.1 * 2**attempt)
        raise ConnectionFailed("the server has withdrawn the message that it announced")

    def _call(self, method: str, request: Any) -> Any:
        """Call the fleet API; every failure becomes one of our two errors."""
        import httpx
        from flwr.supercore.run import RunNotRunningException

        try:
            return getattr(self._client, method)(request)
        except httpx.HTTPStatusError as error:
            raise _meaning(method, error.response) from None
        except RunNotRunningException:
            raise UpdateError(f"{method}: {RUN_ENDED}") from None
        except (httpx.TransportError, ssl.SSLError) as error:
            raise ConnectionFailed(f"{method}: {error or type(error).__name__}") from None
        except (ValueError, RuntimeError) as error:  # RuntimeError: closed while a heartbeat began
            raise ConnectionFailed(f"{method}: {error}") from None


def _meaning(method: str, response: Any) -> FleetError:
    """Translate Flower's error codes (flwr/supercore/error/base.py) into ours."""
    from flwr.supercore.error import ApiErrorCode, FlowerError

    error = FlowerError.from_json(response.text)
    if error is not None and error.code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED:
        return UpdateError(f"{method}: {RUN_ENDED}")
    text = f"the fleet API answers {response.status_code} to {method}: {response.text[:300]}"
    refused = error is not None and error.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED
    return RefusedError(text) if refused or response.status_code == 401 else ConnectionFailed(text)


# ------------------------------------------------------------------------------- server side


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Arrived:
    """A whole reply. Whom it is from stands in the server's records: believe nothing in it."""

    message_id: str  # of the message that it answers
    content: "RecordDict | None" = None
    reason: str = ""  # why there is no content; may be the robot's own words


def create_superlink(database: str, host: str, port: int) -> "FastAPI":
    """Return Flower's SuperLink as an app, robots authenticated, no ServerApp process of its own.

    Args:
        database: SQLite file.
        host: address that the caller serves the app at; Flower only records it.
        port: as `host`.
    """
    quiet()
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app

    logging.getLogger("flwr").setLevel(logging.WARNING)  # it logs every poll of every robot
    config = SuperLinkLifespanConfig(
        control_address="127.0.0.1:0",  # unused in 1.41: every API is served by the app
        health_server_address=None,
        host=host,
        port=port,
        insecure=False,
        certificates=None,  # TLS belongs to whoever serves the app
        superexec_auth_secret=os.urandom(32),
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=database,
        isolation="process",
        runtime_dependency_install=False,
    )
    return create_app(config, SuperLinkLifespan)


class LinkGrid:
    """The round loop's hands on an embedded SuperLink: nodes, runs, messages; no network.

    It offers the part of `flwr.serverapp.Grid` that the round loop uses (`push_messages`,
    `pull_messages`), straight on the link state. Thread-safe as the link state is; one run at a
    time, because Flower keeps the identity of a task per process.
    """

    def __init__(self, app: "FastAPI") -> None:
        self._state: Any = app.state.linkstate_factory.state()
        self._run_id = self._task_id = 0
        self._stop = threading.Event()
        self._incoming: dict[str, Message] = {}  # message id -> its reply, still being uploaded

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

    def _readmit(self, key: bytes) -> None:
        """Undo `unregister`: Flower keeps the key of a forgotten node and never takes it again."""
        from flwr.supercore.constant import NodeStatus
        from flwr.supercore.state.schema.linkstate_models import Node
        from sqlalchemy import update

        gone = (Node.public_key == key, Node.status == NodeStatus.UNREGISTERED)
        with self._state.session() as session:
            session.execute(update(Node).where(*gone).values(status=NodeStatus.REGISTERED))

    def set_offline(self, node_id: int) -> None:
        """End a stale session, so that a robot that was killed may come back at once."""
        self._state.deactivate_node(node_id)

    def online(self) -> set[int]:
        """Return the node ids that have sent a heartbeat lately."""
        from flwr.supercore.constant import NodeStatus

        return {int(info.node_id) for info in self._nodes([NodeStatus.ONLINE])}

    def open_run(self) -> int:
        """Start a Flower run whose ServerApp is the caller; ends with `close_run`."""
        from flwr.cli.build import build_fab_from_files
        from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID
        from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
        from flwr.supercore.fab import Fab
        from flwr.supercore.task_identity import TaskIdentity

        content, _ = build_fab_from_files({"pyproject.toml": STOCK_APP})
        fab_hash = self._state.store_fab(Fab(_sha256(content), content, {}))
        self._run_id = self._state.create_run(
            "fleetlearn/fleetlearn", "1.0.0", fab_hash, {}, NOOP_FEDERATION_ID, None,
            NOOP_FLWR_AID, TaskType.SERVER_APP,
        )  # fmt: skip
        (run,) = self._state.get_run_info(run_ids=[self._run_id])
        self._task_id = run.primary_task_id
        if not self._state.claim_task(self._task_id) or not self._state.activate_task(
            self._task_id
        ):
            raise RoundError("Flower did not start the run; restart the server")
        TaskIdentity.task_id, TaskIdentity.run_id = self._task_id, self._run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._stop = threading.Event()
        self._incoming.clear()
        threading.Thread(target=self._beat, args=(self._stop,), daemon=True).start()
        return self._run_id

    def close_run(self, *, completed: bool) -> None:
        """End the run; robots that still work on it are told at their next call."""
        from flwr.common.constant import SubStatus

        self._stop.set()
        status = SubStatus.COMPLETED if completed else SubStatus.FAILED
        self._state.finish_task(self._task_id, status, "")
        self._state.cleanup_run(self._run_id)

    def push(self, content: "RecordDict", node_ids: Sequence[int], ttl_s: float) -> dict[str, int]:
        """Send the same content to nodes; return message id -> node id of those accepted."""
        from flwr.app import Message, MessageType
        from flwr.app.message import remove_content_from_message
        from flwr.supercore.inflatable.inflatable_object import (
            get_all_nested_objects,
            get_object_tree,
            no_object_id_recompute,
        )

        session = self._state.start_session(self._run_id)
        sent: dict[str, int] = {}
        objects: dict[str, Any] = {}
        missing: set[str] = set()
        with no_object_id_recompute():
            for node_id in node_ids:
                message = Message(content, node_id, MessageType.TRAIN, ttl=ttl_s)
                message.metadata.__dict__["_message_id"] = message.object_id
                bare = remove_content_from_message(message)  # content travels as objects
                stored, absent = self._state.store_message_and_object_tree(
                    bare, get_object_tree(message), session
                )
                if stored:
                    sent[message.metadata.message_id] = node_id
                    objects |= get_all_nested_objects(message)  # equal content: stored once
                    missing.update(absent)
            for object_id in missing:  # the session ends with its last object: objects come last
                content_bytes = objects[object_id].deflate()
                self._state.store_object(self._run_id, session, object_id, content_bytes)
        return sent

    def pull(self, message_ids: Iterable[str]) -> list[Arrived]:
        """Return the replies that are complete, each one once; never waits for a robot."""
        awaited = set(message_ids)
        for reply in self._announced(awaited - self._incoming.keys()):
            self._incoming[reply.metadata.reply_to_message_id] = reply
        complete = []
        for message_id in awaited & self._incoming.keys():
            arrived = self._unpack(message_id, self._incoming[message_id])
            if arrived is not None:
                del self._incoming[message_id]
                complete.append(arrived)
        return complete

    def _announced(self, message_ids: set[str]) -> "list[Message]":
        """Return bare replies; their objects may follow later, or never if the robot died."""
        replies = self._state.get_message_res(message_ids=message_ids, run_id=self._run_id)
        self._state.delete_messages(
            message_ins_ids={reply.metadata.reply_to_message_id for reply in replies}
        )
        return list(replies)

    def _unpack(self, message_id: str, reply: "Message") -> Arrived | None:
        """Return a reply with its content, or None while objects are missing."""
        from flwr.app import RecordDict
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

        if reply.has_error():
            reason = reply.error.reason or "an error without a reason"
            return Arrived(message_id=message_id, reason=reason)
        root = reply.metadata.message_id
        try:
            contents = self._contents(root)
            if contents is None:
                return None
            message: Any = inflate_object_from_contents(root, contents)
            content = message.content
            if not isinstance(content, RecordDict):
                raise TypeError(f"content is {type(content).__name__}")
        except Exception as error:  # robots are not trusted: one bad reply must not end the round
            log.warning("unreadable reply", exc_info=True)
            return Arrived(
                message_id=message_id, reason=f"unreadable reply ({type(error).__name__})"
            )
        self._state.object_store.delete(root)
        return Arrived(message_id=message_id, content=content)

    def _contents(self, root: str) -> dict[str, bytes] | None:
        """Return object id -> bytes of a whole tree, or None while one is missing."""
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

        tree = self._state.object_store.get_object_tree(root)
        contents: dict[str, bytes] = {}
        for item in reversed(list(iterate_object_tree(tree))):  # robots send the root last
            content = self._state.get_object(self._run_id, item.object_id)
            if content is None:
                raise LookupError("Flower has given up waiting for the rest")
            if not content:
                return None
            contents[item.object_id] = content
        return contents

    def _nodes(self, statuses: Sequence[str] | None) -> Any:
        from flwr.supercore.constant import NodeStatus

        alive = [NodeStatus.REGISTERED, NodeStatus.ONLINE, NodeStatus.OFFLINE]
        return self._state.get_node_info(statuses=statuses or alive)

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(10.0):  # the run fails 60 s after the last one
            self._state.acknowledge_task_heartbeat(self._task_id)


def _sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()
