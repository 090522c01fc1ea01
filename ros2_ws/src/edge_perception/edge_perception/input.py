"""One topic that a node listens to: followed as publishers come, go and change, and explained."""

from collections.abc import Callable, Sequence
from typing import Any

from edge_agent.data.frames.message import CAMERA_TYPES
from edge_agent.data.frames.ros_subscription import RELIABILITIES, TEND_S, OfferedSubscription
from fleet_model.errors import FrameError

__all__ = ["RELIABILITIES", "TRANSPORTS", "TopicInput", "image_topic"]

TRANSPORTS = ("raw", "compressed")
_COMPRESSED = "/compressed"
# Messages that wait in the middleware while the process gets no CPU. What does not fit is lost and
# not counted, so it is a second at 30 Hz rather than the one image that is worked on next.
DEPTH = 30
_WORRY_S = 3.0  # without a message: then diagnostics say why


class TopicInput:
    """A subscription that asks for what the publishers offer; see OfferedSubscription."""

    def __init__(
        self,
        node: Any,
        topic: str,
        receive: Callable[[str, bytes], None],
        *,
        types: Sequence[str] = CAMERA_TYPES,
        reliability: str = "auto",
        depth: int = DEPTH,
        may_be_silent: bool = False,
        callback_group: Any = None,
    ) -> None:
        """Begin to listen; `receive` gets (type, serialized message) in the node's executor.

        Where silence is normal, as on a topic of events, it is no problem and is not told.
        """
        self.lost = 0  # messages that the middleware lost
        self._node = node
        self._is_image = bool({*types} & {*CAMERA_TYPES})
        self._wrong_type, self._may_be_silent = "", may_be_silent
        self._subscription = OfferedSubscription(
            node,
            topic,
            receive,
            types=types,
            reliability=reliability,
            depth=depth,
            lose=self._lose,
            may_be_silent=may_be_silent,
            callback_group=callback_group,
        )
        self._timer = node.create_timer(TEND_S, self._tend)
        self._tend()

    @property
    def topic(self) -> str:
        """The whole name, remapped."""
        return self._subscription.topic

    @property
    def subscription(self) -> Any:
        """That of rclpy as it is now; None while nobody publishes."""
        return self._subscription.subscription

    @property
    def received(self) -> int:
        """Messages until now."""
        return self._subscription.arrived

    @property
    def empty(self) -> int:
        """Deliveries of the middleware without a message: nobody has sent them."""
        return self._subscription.empty

    @property
    def offer(self) -> str:
        """What is listened to, in words."""
        offer = self._subscription.offer
        if offer is None:
            return "nothing yet"
        return f"{offer.type}, {'reliable' if offer.reliable else 'best effort'}"

    def problem(self) -> str:
        """Return why nothing arrives; "" while messages come."""
        if self._wrong_type:
            return self._wrong_type
        silent_s = self._subscription.silent_s
        if silent_s < _WORRY_S or self._may_be_silent:
            return ""
        why = self._beside() or self._subscription.why()
        return f"{self.topic}: no message for {silent_s:.0f} s: {why}"

    def close(self) -> None:
        """Take no more messages."""
        self._node.destroy_timer(self._timer)
        self._subscription.close()

    def _beside(self) -> str:
        """Return what to do where the pictures are published by the other transport only."""
        if not self._is_image or self._node.count_publishers(self.topic):
            return ""
        is_compressed = self.topic.endswith(_COMPRESSED)
        other = self.topic[: -len(_COMPRESSED)] if is_compressed else self.topic + _COMPRESSED
        if not self._node.count_publishers(other):
            return ""
        wanted = TRANSPORTS[not is_compressed]
        return f"nobody publishes it, but {other} is there: set the parameter transport to {wanted}"

    def _tend(self) -> None:
        before, offer = self._wrong_type, self._subscription.offer
        try:
            self._subscription.tend()
            self._wrong_type = ""
            if self._subscription.offer not in (None, offer):
                self._node.get_logger().info(f"listens to {self.topic}: {self.offer}")
        except FrameError as error:
            self._wrong_type = str(error)
        except ImportError as error:
            self._wrong_type = f"{self.topic}: {error}; install that message package"
        if self._wrong_type not in ("", before):
            self._node.get_logger().error(self._wrong_type)

    def _lose(self, count: int) -> None:
        self.lost += count


def image_topic(node: Any, topic: str, transport: str) -> str:
    """Return the topic that a camera's pictures come on.

    As with image_transport, a remap of the image topic counts for its JPEG beside it as well.

    Args:
        node: its remaps apply.
        topic: of raw images, e.g. "image".
        transport: one of TRANSPORTS.
    """
    raw = str(node.resolve_topic_name(topic))
    if transport == "raw":
        return raw
    compressed = str(node.resolve_topic_name(f"{topic}/compressed"))
    remapped = compressed != str(node.resolve_topic_name(f"{topic}/compressed", only_expand=True))
    return compressed if remapped else f"{raw}/compressed"
