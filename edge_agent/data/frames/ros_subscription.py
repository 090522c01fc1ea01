"""Subscribe to a topic as its publishers offer it, and say why nothing arrives.

For any node: that of `ros:/camera/image` and those of the ROS package. Most questions about
perception nodes are "no detections, no image", and most answers are a policy that does not fit.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from edge_agent.data.frames.message import CAMERA_TYPES
from fleet_model.errors import FrameError

log = logging.getLogger(__name__)

TEND_S = 0.25  # between two looks at the publishers
RELIABILITIES = ("auto", "reliable", "best_effort")
_SILENCE_S = 5.0  # without a message before the log says why; then twice as long each time

# What the middleware calls a node that it does not know yet or any more, or that is no ROS node.
_NAMELESS = {"_NODE_NAME_UNKNOWN_", "_CREATED_BY_BARE_DDS_APP_"}

Receive = Callable[[str, bytes], None]  # the type without "/msg/", a whole serialized message


class Offer(NamedTuple):
    """What all the publishers of a topic can deliver."""

    type: str
    reliable: bool
    latched: bool  # the last messages are kept for those who come late


class OfferedSubscription:
    """One subscription of a node that is made, and made again, as publishers offer it.

    Everything runs in the node's executor: the owner calls `tend` every TEND_S.
    """

    def __init__(
        self,
        node: Any,
        topic: str,
        receive: Receive,
        *,
        types: Sequence[str] = CAMERA_TYPES,
        reliability: str = "auto",
        depth: int = 4,
        lose: Callable[[int], None] = lambda count: None,
        may_be_silent: bool = False,
        callback_group: Any = None,
    ) -> None:
        """Keep what to listen to; `tend` subscribes when somebody publishes.

        Args:
            node: an rclpy node.
            topic: remaps of the node apply.
            receive: gets every message as it came, undecoded.
            types: the first one that is published is taken; without "/msg/".
            reliability: one of RELIABILITIES; "auto" asks for what all publishers offer.
            depth: messages that wait in the middleware while the executor is busy.
            lose: gets how many messages the middleware has lost now.
            may_be_silent: the log does not say why nothing arrives.
            callback_group: of the subscription; None is the node's own.
        """
        self.topic = str(node.resolve_topic_name(topic))
        self.offer: Offer | None = None
        self.arrived = 0  # messages until now
        self.empty = 0  # deliveries without a message
        self._node, self._receive, self._lose = node, receive, lose
        self._types, self._reliability, self._depth = tuple(types), reliability, depth
        self._subscription: Any = None
        self._may_be_silent, self._group = may_be_silent, callback_group
        self._refused = ""  # the policy that kept a publisher from being heard
        self._heard = time.monotonic()
        self._next_word_s = _SILENCE_S

    def tend(self) -> None:
        """Subscribe as the publishers offer it; say in the log why nothing arrives.

        Raises:
            FrameError: only other types are published there.
        """
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        offer = self._choose(publishers)
        if offer and _must_renew(self.offer, offer):
            self._subscribe(offer)
        if self.silent_s > self._next_word_s and not self._may_be_silent:
            why = self._why(publishers)
            log.warning("%s: no message for %.0f s: %s", self.topic, self._next_word_s, why)
            self._next_word_s *= 2

    @property
    def subscription(self) -> Any:
        """That of rclpy as it is now; None while nobody publishes."""
        return self._subscription

    @property
    def silent_s(self) -> float:
        """Seconds since the last message, or since the beginning."""
        return time.monotonic() - self._heard

    def why(self) -> str:
        """Return why nothing arrives, as far as that can be seen from here."""
        return self._why(self._node.get_publishers_info_by_topic(self.topic))

    def close(self) -> None:
        """Take no more messages."""
        if self._subscription:
            self._node.destroy_subscription(self._subscription)
        self._subscription = self.offer = None

    def _choose(self, publishers: Any) -> Offer | None:
        """Return what every publisher of one type delivers: the least of each policy."""
        from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

        types = sorted({short_type(p.topic_type) for p in publishers})
        chosen = next((type_ for type_ in self._types if type_ in types), None)
        if not chosen:
            if types and not self.offer:
                raise FrameError(
                    f"{self.topic}: publishes {', '.join(types)}, expected "
                    f"{' or '.join(self._types)}"
                )
            return None
        offered = [p.qos_profile for p in publishers if short_type(p.topic_type) == chosen]
        reliable = all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offered)
        if self._reliability != "auto":
            reliable = self._reliability == "reliable"
        latched = all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
        return Offer(chosen, reliable, latched and reliable)

    def _subscribe(self, offer: Offer) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        reliability, durability = ReliabilityPolicy, DurabilityPolicy
        qos = QoSProfile(
            depth=self._depth,
            reliability=reliability.RELIABLE if offer.reliable else reliability.BEST_EFFORT,
            durability=durability.TRANSIENT_LOCAL if offer.latched else durability.VOLATILE,
        )
        if self._subscription:
            log.info("%s: its publisher changed; now %s", self.topic, offer)
            self._node.destroy_subscription(self._subscription)
        self.offer, self._refused = offer, ""
        self._subscription = self._node.create_subscription(
            message_class(offer.type),
            self.topic,
            partial(self._take, offer.type),
            qos,
            callback_group=self._group,
            event_callbacks=_events(
                incompatible_qos=self._refuse,
                message_lost=lambda event: self._lose(event.total_count_change),
            ),
            raw=True,  # one copy out of the middleware; pixels are read inside it
        )

    def _take(self, type_: str, message: bytes) -> None:
        if not message:
            # rmw_fastrtps 9.3.3, where a busy machine joins a running reliable stream: as many
            # "messages" of no bytes, sequence number 0 and no publisher as the queue is deep.
            self.empty += 1
            return
        self.arrived += 1
        self._heard, self._next_word_s = time.monotonic(), _SILENCE_S
        self._receive(type_, message)

    def _refuse(self, event: Any) -> None:
        from rclpy.qos import qos_policy_name_from_kind

        self._refused = qos_policy_name_from_kind(event.last_policy_kind)

    def _why(self, publishers: Any) -> str:
        if not publishers:
            topics = self._node.get_topic_names_and_types()
            wanted, own = {*self._types}, [one.topic_name for one in self._node.publishers]
            such = [name for name, types in topics if {*map(short_type, types)} & wanted]
            such = [name for name in such if self._node.count_publishers(name) > own.count(name)]
            what = "camera" if wanted & {*CAMERA_TYPES} else " or ".join(self._types)
            domain = os.environ.get("ROS_DOMAIN_ID", "0")
            return (
                f"nobody publishes it; {what} topics in ROS domain {domain}: "
                f"{', '.join(such) or 'none'}"
            )
        names = ", ".join(sorted({p.node_name for p in publishers} - _NAMELESS)) or "its publisher"
        if self._refused:
            return f"{names} does not offer the {self._refused.lower()} that was asked for"
        # measured: 0 to 1 % of best-effort VGA pictures fit through the default 512 kB segment
        too_large = ", or best-effort pictures too large for the middleware's shared memory"
        is_certain = self.offer and self.offer.reliable
        return f"{names} sends nothing{'' if is_certain else too_large}; is the camera running?"


def short_type(name: str) -> str:
    """Return the type without "/msg/", as bags and CAMERA_TYPES have it."""
    return name.replace("/msg/", "/")


def message_class(type_: str) -> Any:
    """Return the class of "package/Name"; ImportError where the package is not installed."""
    from importlib import import_module

    package, _, name = type_.rpartition("/")
    return getattr(import_module(f"{package}.msg"), name)


def _must_renew(now: Offer | None, offer: Offer) -> bool:
    """Return whether the subscription must be made again to hear everybody as well as possible."""
    if now is None or (now.type, now.reliable) != (offer.type, offer.reliable):
        return True
    # never only to become latched: that would deliver old messages a second time
    return now.latched and not offer.latched


def _events(**callbacks: Callable[[Any], None]) -> Any:
    try:
        from rclpy.event_handler import SubscriptionEventCallbacks
    except ImportError:  # ROS 2 Humble
        from rclpy.qos_event import SubscriptionEventCallbacks
    return SubscriptionEventCallbacks(**callbacks)
