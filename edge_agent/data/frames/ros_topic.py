"""Read camera frames live from a ROS 2 topic. The only module here that talks to ROS.

Everything of ROS happens in one thread: it makes the node, follows what the publishers offer, takes
messages as bytes and destroys the node again. The reader gets them through a short queue.
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.frames.live import LiveQueue, ending_at_signals
from edge_agent.data.frames.message import CAMERA_TYPES, frame_of
from edge_agent.data.frames.source import LIVE_PREFIX, FrameEntry
from edge_agent.data.storage import Topic
from fleet_model.errors import FrameError, SettingsError

log = logging.getLogger(__name__)

_SOURCE = "ros"  # Frame.source of live frames, where a bag has its name
_POLL_S = 0.1  # how late a stop is noticed
_TEND_S = 0.25  # between two looks at the publishers
_SILENCE_S = 5.0  # without a message before the log says why; then twice as long each time
_JOIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """How a topic is listened to."""

    queue_frames: int = 4  # kept while the reader is busy; then the oldest is dropped
    patience_s: float = 30.0  # for the first frame; later silence is only logged
    reliability: str = ""  # "reliable" or "best_effort"; "" asks for what the publisher offers


def open_topic(path: Path, topic: str = "") -> "RosTopicFrames":
    """Return the topic that a path such as "ros:/camera/image" names.

    Raises:
        SettingsError: `topic` names another one.
    """
    name = "/" + path.as_posix().removeprefix(LIVE_PREFIX).strip("/")
    if topic and topic != name:
        raise SettingsError(f"{path} names its topic already; leave out --topic {topic}")
    return RosTopicFrames(name)


class RosTopicFrames:
    """The frames of one camera topic from now on: of the same form as those of a bag.

    While `entries` is read in the main thread, the first SIGINT or SIGTERM ends it as `stop` does,
    so that a command can still write its summary; the next one does what it did before. In a
    process where rclpy handles signals, the end of its context ends the entries.
    """

    def __init__(self, topic: str, type: str = "", settings: LiveSettings | None = None) -> None:
        """Keep what to listen to; nothing of ROS is loaded yet.

        Args:
            topic: the whole name, e.g. "/camera/image_raw"; remaps do not apply.
            type: one of CAMERA_TYPES, where several are published on the topic.
            settings: see LiveSettings.
        """
        self.topic = "/" + topic.lstrip("/")
        self._type = _short(type)
        self._settings = settings or LiveSettings()
        self._stopped = False

    def stop(self) -> None:
        """End `entries`, for good; what arrived before is still delivered. From any thread."""
        self._stopped = True

    def entries(self, damage: DamageLog) -> Iterator[FrameEntry]:
        """Yield every frame as it arrives until `stop` is called.

        Frames that the reader is too slow for are "queue full" in `damage`, those that the
        middleware lost "lost in transport".

        Raises:
            FrameError: ROS is not there, the topic carries no pictures, or nothing arrived within
                the patience; the message says why.
        """
        listener = _Listener(self.topic, self._type, self._settings)
        atexit.register(listener.close)  # a node under a dying interpreter aborts the process
        try:
            with nullcontext() if _rclpy_has_signals() else ending_at_signals(self.stop):
                listener.start(lambda: self._stopped)
                yield from listener.queue.entries(damage)
        finally:
            listener.close()
            atexit.unregister(listener.close)


class _Offer(NamedTuple):
    """What all the publishers of a topic can deliver."""

    type: str
    reliable: bool
    latched: bool  # the last messages are kept for those who come late


class _Listener:
    """A node with one subscription, in a thread of its own. Everything below runs there."""

    def __init__(self, topic: str, type: str, settings: LiveSettings) -> None:
        self.topic = topic
        self.queue = LiveQueue(f"{_SOURCE}{topic}", settings.queue_frames)
        self._type = type
        self._settings = settings
        self._name = f"{LIVE_PREFIX}{topic}"
        self._node: Any = None
        self._subscription: Any = None
        self._offer: _Offer | None = None
        self._refused = ""  # the policy that kept a publisher from being heard
        self._arrived = False
        self._heard = time.monotonic()
        self._next_word_s = _SILENCE_S
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self, stopped: Callable[[], bool]) -> None:
        """Begin to listen; `stopped` is asked every _POLL_S."""
        self._thread = threading.Thread(
            target=self._run, args=(stopped,), name=self._name, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread, which destroys its node first."""
        self._closing = True
        if self._thread:
            self._thread.join(_JOIN_S)

    def _run(self, stopped: Callable[[], bool]) -> None:
        error = None
        try:
            self._listen(stopped)
        except FrameError as failure:
            error = failure
        except ImportError as failure:
            error = FrameError(
                f"{self._name}: needs ROS 2 ({failure}); run the setup script of your ROS "
                "distribution first"
            )
        except Exception as failure:  # noqa: BLE001  (rclpy's own, one class for every cause)
            what = str(failure).partition("\n")[0].partition(", at ")[0]  # without source lines
            error = FrameError(f"{self._name}: ROS 2: {what or type(failure).__name__}")
        finally:
            self.queue.end(error)

    def _listen(self, stopped: Callable[[], bool]) -> None:
        from rclpy.context import Context
        from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
        from rclpy.node import Node

        context = Context()
        context.init([])  # rclpy.init would touch the signal handlers of the process
        executor = SingleThreadedExecutor(context=context)
        try:
            self._node = Node(
                "edge_agent_frames",
                context=context,
                use_global_arguments=False,
                enable_rosout=False,
                start_parameter_services=False,
            )
            executor.add_node(self._node)
            begun = looked = self._heard = time.monotonic() - _TEND_S
            while not (self._closing or stopped()):
                if time.monotonic() - looked >= _TEND_S:
                    looked = time.monotonic()
                    self._tend(looked - begun)
                executor.spin_once(timeout_sec=_POLL_S)
        except ExternalShutdownException:
            pass
        except Exception:
            if context.ok():  # else it ended in the middle of a call, which fails in its own way
                raise
        finally:
            _shut_down(context, executor, self._node)

    def _tend(self, listened_s: float) -> None:
        """Subscribe as the publishers offer it, and say why nothing arrives."""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        offer = self._choose(publishers)
        if offer and _must_renew(self._offer, offer):
            self._subscribe(offer)
        if not self._arrived and listened_s > self._settings.patience_s:
            raise FrameError(
                f"{self._name}: nothing arrived in {self._settings.patience_s:g} s: "
                f"{self._why(publishers)}",
                "nothing arrives",
            )
        if time.monotonic() - self._heard > self._next_word_s:
            why = self._why(publishers)
            log.warning("%s: no frame for %.0f s: %s", self._name, self._next_word_s, why)
            self._next_word_s *= 2

    def _choose(self, publishers: Any) -> _Offer | None:
        """Return what every publisher of one camera type delivers: the least of each policy."""
        from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

        types = sorted({_short(p.topic_type) for p in publishers})
        wanted = [self._type] if self._type else CAMERA_TYPES
        chosen = next((type_ for type_ in wanted if type_ in types), None)
        if not chosen:
            if types and not self._offer:
                raise FrameError(
                    f"{self._name}: publishes {', '.join(types)}, expected {' or '.join(wanted)}"
                )
            return None
        offered = [p.qos_profile for p in publishers if _short(p.topic_type) == chosen]
        reliable = all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offered)
        if self._settings.reliability:
            reliable = self._settings.reliability == "reliable"
        latched = all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
        return _Offer(chosen, reliable, latched and reliable)

    def _subscribe(self, offer: _Offer) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from sensor_msgs import msg

        reliability, durability = ReliabilityPolicy, DurabilityPolicy
        qos = QoSProfile(
            depth=self._settings.queue_frames,
            reliability=reliability.RELIABLE if offer.reliable else reliability.BEST_EFFORT,
            durability=durability.TRANSIENT_LOCAL if offer.latched else durability.VOLATILE,
        )
        if self._subscription:
            log.info("%s: its publisher changed; now %s", self._name, offer)
            self._node.destroy_subscription(self._subscription)
        self._offer, self._refused = offer, ""
        self._subscription = self._node.create_subscription(
            getattr(msg, offer.type.rpartition("/")[2]),
            self.topic,
            partial(self._receive, Topic(self.topic, offer.type, "cdr", "", 0)),
            qos,
            event_callbacks=_events(incompatible_qos=self._refuse, message_lost=self._lose),
            raw=True,
        )

    def _receive(self, topic: Topic, message: bytes) -> None:
        self._arrived, self._heard = True, time.monotonic()
        self._next_word_s = _SILENCE_S
        now_ns = time.time_ns()
        self.queue.put(now_ns, partial(frame_of, message, topic, _SOURCE, now_ns))

    def _lose(self, event: Any) -> None:
        self.queue.lost("lost in transport", event.total_count_change)

    def _refuse(self, event: Any) -> None:
        from rclpy.qos import qos_policy_name_from_kind

        self._refused = qos_policy_name_from_kind(event.last_policy_kind)

    def _why(self, publishers: Any) -> str:
        """Return why nothing arrives, as far as that can be seen from here."""
        if not publishers:
            topics = self._node.get_topic_names_and_types()
            cameras = [name for name, types in topics if {*map(_short, types)} & {*CAMERA_TYPES}]
            domain = os.environ.get("ROS_DOMAIN_ID", "0")
            return (
                f"nobody publishes it; camera topics in ROS domain {domain}: "
                f"{', '.join(cameras) or 'none'}"
            )
        names = ", ".join(sorted({p.node_name for p in publishers}))
        if self._refused:
            return f"{names} does not offer the {self._refused.lower()} that was asked for"
        # measured: 3 to 15 % of best-effort VGA pictures fit through the default 512 kB segment
        too_large = ", or best-effort pictures too large for the middleware's shared memory"
        is_certain = self._offer and self._offer.reliable
        return f"{names} sends nothing{'' if is_certain else too_large}; is the camera running?"


def _short(type_name: str) -> str:
    """Return the type without "/msg/", as bags and CAMERA_TYPES have it."""
    return type_name.replace("/msg/", "/")


def _shut_down(context: Any, executor: Any, node: Any) -> None:
    """End our parts of ROS; at a signal rclpy ends every context, maybe between two lines here."""
    steps = [executor.shutdown, context.try_shutdown]
    if node:
        steps.insert(1, node.destroy_node)
    for step in steps:
        try:
            step()
        except Exception:
            if context.ok():
                raise


def _must_renew(now: _Offer | None, offer: _Offer) -> bool:
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


def _rclpy_has_signals() -> bool:
    try:
        from rclpy.signals import SignalHandlerOptions, get_current_signal_handlers_options
    except ImportError:
        return False
    return bool(get_current_signal_handlers_options() != SignalHandlerOptions.NO)
