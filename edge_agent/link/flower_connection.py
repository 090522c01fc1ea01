"""The robot's link to a fleet, on Flower's internals (flwr 1.41 and 1.42).

Public Flower has no way to take part in a fleet without executing code that the server sends. It is
small on top of what is inside; the contract test beside this module's tests names the piece
that moved when flwr changes. Flower is imported when a connection is made. The server's part is
cloud_server/flower.
"""

import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edge_agent.link.answers import RUN_ENDED, meaning
from fleet_model.errors import ConnectionFailed, FleetError, RefusedError, UpdateError
from fleet_model.flower import quiet

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from flwr.app import Message

    from edge_agent.link.news import WholeMessages

INTERNALS = (  # "module:name" of everything used here, for the contract test
    "flwr.app.message:remove_content_from_message",
    "flwr.common.constant:HEARTBEAT_DEFAULT_INTERVAL",
    "flwr.common.serde:message_to_proto",
    "flwr.proto.fleet_pb2:ActivateNodeRequest",
    "flwr.proto.fleet_pb2:DeactivateNodeRequest",
    "flwr.proto.fleet_pb2:PullMessagesRequest",
    "flwr.proto.fleet_pb2:PullMessagesResponse",
    "flwr.proto.fleet_pb2:PushMessagesRequest",
    "flwr.proto.heartbeat_pb2:SendNodeHeartbeatRequest",
    "flwr.proto.message_pb2:ConfirmMessageReceivedRequest",
    "flwr.proto.message_pb2:PullObjectRequest",
    "flwr.proto.message_pb2:PushObjectRequest",
    "flwr.proto.node_pb2:Node",
    "flwr.supercore.error:ApiErrorCode",
    "flwr.supercore.error:FlowerError",
    "flwr.supercore.inflatable.inflatable_object:get_all_nested_objects",
    "flwr.supercore.inflatable.inflatable_object:get_object_id",
    "flwr.supercore.inflatable.inflatable_object:get_object_tree",
    "flwr.supercore.inflatable.inflatable_object:iterate_object_tree",
    "flwr.supercore.inflatable.inflatable_object:no_object_id_recompute",
    "flwr.supercore.inflatable.inflatable_utils:inflate_object_from_contents",
    "flwr.supercore.primitives.asymmetric:public_key_to_bytes",
    "flwr.supercore.run:RunNotRunningException",
    "flwr.supercore.runtime_version_compatibility:RuntimeVersionMetadata",
    "flwr.supernode.fleet_http_client:FleetHttpClient",
    "flwr.supernode.node_auth_http_interceptor:NodeAuthHttpInterceptor",
)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0  # for an object that the server still waits for itself


class _Traffic:
    """Count payload bytes of every call, as a robot on a mobile plan would."""

    def __init__(self) -> None:
        self.up = self.down = 0

    def intercept(self, context: Any, call_next: Any) -> Any:
        self.up += len(context.request.content)
        response = call_next(context)
        self.down += len(response.content)
        return response


class _Version:
    """Send this Flower's version; Flower's own interceptor ends the process if it is refused."""

    def __init__(self) -> None:
        from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

        self._headers = dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata())

    def intercept(self, context: Any, call_next: Any) -> Any:
        context.request.headers.update(self._headers)
        return call_next(context)


class _Incoming:
    """A message that the server hands out once, and what of it has arrived so far."""

    def __init__(self, metadata: Any, tree: Any) -> None:
        self.run_id, self.tree = metadata.run_id, tree
        self.expires_at = metadata.created_at + metadata.ttl  # seconds since 1970
        self.contents: dict[str, bytes] = {}
        self.wait_s = FIRST_WAIT_S


class FleetConnection:
    """Take part in a fleet: activate, receive messages, reply. Executes nothing it receives.

    A session outlives the network and the server's process: after ConnectionFailed every call may
    be repeated, and `receive` and `reply` continue where they were cut. Not thread-safe, except
    `heartbeat`, which may run in another thread.
    """

    def __init__(
        self,
        address: str,
        ca_pem: bytes,
        private_key: "ec.EllipticCurvePrivateKey",
        whole: "WholeMessages | None" = None,
    ) -> None:
        """Send nothing yet; `whole` moves small messages, where the server does."""
        quiet()
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
                _Version(),
                NodeAuthHttpInterceptor(private_key, public_key),
            ],
        )
        self._whole = whole
        self._node: Any = None
        self._incoming: _Incoming | None = None
        self.objects = 0  # parts of messages that came or went
        self._announced = ("", "")  # the last reply, and Flower's session for its objects

    @property
    def bytes_up(self) -> int:
        """Return payload bytes sent so far."""
        return self._traffic.up

    @property
    def bytes_down(self) -> int:
        """Return payload bytes received so far."""
        return self._traffic.down

    @property
    def is_receiving(self) -> bool:
        """Whether a message was announced and has not arrived whole."""
        return self._incoming is not None

    def activate(self) -> None:
        """Come online; raises RefusedError, also while an older session lasts, ConnectionFailed."""
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

    def resume(self) -> None:
        """Be online after a failed call: continue the session, or begin a new one.

        A heartbeat keeps what the server awaits of this robot; a node that goes offline for a
        moment loses it.

        Raises:
            RefusedError, ConnectionFailed: as `activate`.
        """
        try:
            alive = self._node is not None and self.heartbeat()
        except RefusedError:  # a server with a new database knows this robot as another node
            alive = False
        if not alive:
            self.activate()

    def receive(self) -> "Message | None":
        """Return the next message with its content, or None.

        A stock SuperLink announces a message before its ServerApp has sent the content, which takes
        a while where many are asked. Until then this is None, and `is_receiving` is true.

        Raises:
            UpdateError: the message is damaged or withdrawn; it is given up, the session continues.
            ConnectionFailed, RefusedError: call `resume`; the message is not lost.
        """
        from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
        from flwr.supercore.inflatable.inflatable_object import get_object_id

        parts = self._whole.receive() if self._whole and self._incoming is None else None
        if parts is not None:
            self._traffic.down += sum(map(len, parts))
            self.objects += len(parts)
            (tree,) = PullMessagesResponse.FromString(parts[0]).message_object_trees
            return self._inflated(tree.object_id, {get_object_id(one): one for one in parts[1:]})
        if self._incoming is None:
            response = self._call("PullMessages", PullMessagesRequest(node=self._node))
            if not response.messages_list:
                return None
            self._incoming = _Incoming(
                response.messages_list[0].metadata, response.message_object_trees[0]
            )
        try:
            return self._fetch(self._incoming)
        except (ConnectionFailed, RefusedError):
            raise
        except BaseException:
            self._incoming = None
            raise

    def _fetch(self, incoming: _Incoming) -> "Message | None":
        """Get what is missing of a message; None while the server has not all of it."""
        from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

        run_id, root = incoming.run_id, incoming.tree.object_id
        if time.time() > incoming.expires_at:
            raise UpdateError("a message has not arrived whole in its time; it is given up")
        for object_id in [item.object_id for item in iterate_object_tree(incoming.tree)]:
            if object_id not in incoming.contents:
                request = PullObjectRequest(node=self._node, run_id=run_id, object_id=object_id)
                if (content := self._pull(incoming, request)) is None:
                    return None
                incoming.contents[object_id] = content
        done = ConfirmMessageReceivedRequest(node=self._node, run_id=run_id, message_object_id=root)
        self._call("ConfirmMessageReceived", done)
        self._incoming = None
        return self._inflated(root, incoming.contents)

    def _inflated(self, root: str, contents: dict[str, bytes]) -> "Message":
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

        try:
            message: Any = inflate_object_from_contents(root, contents)
        except Exception as error:  # noqa: BLE001  (whatever Flower says of bytes that are not its)
            reason = f"the server's message is damaged ({type(error).__name__})"
            raise UpdateError(reason) from None
        message.metadata.__dict__["_message_id"] = root
        return message  # type: ignore[no-any-return]

    def reply(self, message: "Message", seconds: float) -> None:
        """Send a reply that was made with `Message(..., reply_to=received)`.

        The same reply may be sent again after a failure: what has arrived of it is not sent twice.

        Raises:
            UpdateError: it comes too late; this work is lost, the session continues.
            ConnectionFailed, RefusedError: call `resume`, then this again.
        """
        from flwr.app.message import remove_content_from_message
        from flwr.common.serde import message_to_proto
        from flwr.proto.fleet_pb2 import PushMessagesRequest
        from flwr.supercore.inflatable.inflatable_object import (
            get_all_nested_objects,
            get_object_tree,
            no_object_id_recompute,
        )

        message.metadata.__dict__["_message_id"] = message.object_id
        with no_object_id_recompute():
            objects = get_all_nested_objects(message)
            bare = remove_content_from_message(message) if message.has_content() else message
            request = PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(bare)],
                message_object_trees=[get_object_tree(message)],
                clientapp_runtime_list=[seconds],
            )
            if self._whole is not None:
                parts = (request.SerializeToString(), *(one.deflate() for one in objects.values()))
                if sent := self._whole.reply(parts):
                    self._traffic.up += sent
                    self.objects += len(parts)
                    return
            response = self._call("PushMessages", request)
            if response.objects_to_push:
                self._announced = (message.object_id, response.session_id)
                for object_id in response.objects_to_push:
                    if not self._push(message, objects[object_id]):
                        raise ConnectionFailed("the server did not store the whole update")
            # A stock SuperLink hands half a reply to its ServerApp, and then knows the question no
            # longer. It still takes the other half; the root shows whether there is one.
            elif self._announced[0] == message.object_id and self._push(
                message, objects.pop(message.object_id)
            ):
                for one in objects.values():
                    self._push(message, one)
            else:
                raise UpdateError(
                    "the server awaits this reply no longer: it has it, or its time was over"
                )

    def close(self) -> None:
        """Go offline if the server can be reached; the connection is of no use afterwards."""
        from flwr.proto.fleet_pb2 import DeactivateNodeRequest

        if self._node is not None:
            with suppress(FleetError):  # else the server sees it when heartbeats stop
                self._call("DeactivateNode", DeactivateNodeRequest(node_id=self._node.node_id))
            self._node = None
        self._client.close()

    def _push(self, message: "Message", item: Any) -> bool:
        """Send one object of the announced message; False if the server does not wait for it."""
        from flwr.proto.message_pb2 import PushObjectRequest

        request = PushObjectRequest(
            node=self._node,
            run_id=message.metadata.run_id,
            session_id=self._announced[1],
            object_id=item.object_id,
            object_content=item.deflate(),
        )
        return bool(self._call("PushObject", request).stored)

    def _pull(self, incoming: _Incoming, request: Any) -> bytes | None:
        """Get an object; None, after some seconds, if the server still waits for it itself."""
        while not (response := self._call("PullObject", request)).object_available:
            if not response.object_found:
                raise UpdateError("the server has withdrawn the message that it announced")
            time.sleep(incoming.wait_s)
            incoming.wait_s = min(2 * incoming.wait_s, LONGEST_WAIT_S)
            if incoming.wait_s == LONGEST_WAIT_S:
                return None
        incoming.wait_s = FIRST_WAIT_S
        return bytes(response.object_content)

    def _call(self, method: str, request: Any) -> Any:
        """Call the fleet API; every failure becomes one of our two errors."""
        import httpx
        from flwr.supercore.run import RunNotRunningException

        self.objects += method.endswith("Object")
        try:
            return getattr(self._client, method)(request)
        except httpx.HTTPStatusError as error:
            raise meaning(method, error.response) from None
        except RunNotRunningException:
            raise UpdateError(f"{method}: {RUN_ENDED}") from None
        except (httpx.TransportError, ssl.SSLError) as error:
            raise ConnectionFailed(f"{method}: {error or type(error).__name__}") from None
        except (ValueError, RuntimeError) as error:  # RuntimeError: closed while a heartbeat began
            raise ConnectionFailed(f"{method}: {error}") from None
