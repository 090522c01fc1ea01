"""Read camera frames live from a ROS 2 topic.

Everything of ROS happens in one thread: it makes the node, follows what the publishers offer, takes
messages as bytes and destroys the node again. The reader gets them through a short queue.
"""

import atexit
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent.data.frames.live import LiveQueue, ending_at_signals
from edge_agent.data.frames.message import CAMERA_TYPES, frame_of
from edge_agent.data.frames.ros_subscription import TEND_S, OfferedSubscription, short_type
from edge_agent.data.frames.source import LIVE_PREFIX, FrameEntry
from edge_agent.data.storage import Topic
from fleet_model.errors import FrameError, SettingsError
from fleet_model.files.damage import DamageLog

_SOURCE = "ros"  # Frame.source of live frames, where a bag has its name
_POLL_S = 0.1  # how late a stop is noticed
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
        self._type = short_type(type)
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


class _Listener:
    """A node with one subscription, in a thread of its own. Everything below runs there."""

    def __init__(self, topic: str, type: str, settings: LiveSettings) -> None:
        self.topic = topic
        self.queue = LiveQueue(f"{_SOURCE}{topic}", settings.queue_frames)
        self._type = type
        self._settings = settings
        self._name = f"{LIVE_PREFIX}{topic}"
        self._node: Any = None
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
            error = FrameError(f"{LIVE_PREFIX}{failure}", failure.reason)
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
            self._spin(executor, stopped)
        except ExternalShutdownException:
            pass
        except Exception:
            if context.ok():  # else it ended in the middle of a call, which fails in its own way
                raise
        finally:
            _shut_down(context, executor, self._node)

    def _spin(self, executor: Any, stopped: Callable[[], bool]) -> None:
        subscription = OfferedSubscription(
            self._node,
            self.topic,
            self._receive,
            types=[self._type] if self._type else CAMERA_TYPES,
            reliability=self._settings.reliability or "auto",
            depth=self._settings.queue_frames,
            lose=partial(self.queue.lost, "lost in transport"),
        )
        patience_s = self._settings.patience_s
        looked = time.monotonic() - TEND_S
        while not (self._closing or stopped()):
            if time.monotonic() - looked >= TEND_S:
                looked = time.monotonic()
                subscription.tend()
                if not subscription.arrived and subscription.silent_s > patience_s:
                    raise FrameError(
                        f"{self.topic}: nothing arrived in {patience_s:g} s: {subscription.why()}",
                        "nothing arrives",
                    )
            executor.spin_once(timeout_sec=_POLL_S)

    def _receive(self, type_: str, message: bytes) -> None:
        topic, now_ns = Topic(self.topic, type_, "cdr", "", 0), time.time_ns()
        self.queue.put(now_ns, partial(frame_of, message, topic, _SOURCE, now_ns))


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


def _rclpy_has_signals() -> bool:
    try:
        from rclpy.signals import SignalHandlerOptions, get_current_signal_handlers_options
    except ImportError:
        return False
    return bool(get_current_signal_handlers_options() != SignalHandlerOptions.NO)
