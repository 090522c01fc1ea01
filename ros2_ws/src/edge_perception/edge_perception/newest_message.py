"""A thread that takes a topic's messages out of the middleware by itself, and works on the newest.

The executor of rclpy looks through all services and timers of its node for every message, which
costs about as much as decoding at half the size saves. So it is not asked here; it answers services
while an image is worked on.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from edge_perception.input import TopicInput

from edge_agent.data.frames.message import CAMERA_TYPES

_WAIT_NS = 200_000_000  # then it looks whether the subscription is another one, or none
log = logging.getLogger(__name__)


class NewestMessage:
    """One topic and one worker: what has arrived while it worked gives way to the last of it."""

    def __init__(
        self,
        node: Any,
        topic: str,
        work: Callable[[str, bytes], None],
        *,
        types: Sequence[str] = CAMERA_TYPES,
        reliability: str = "auto",
    ) -> None:
        """Begin; `work` gets (type, serialized message) in the thread, one at a time."""
        self.dropped = 0  # messages that a later one has replaced
        self.failed = 0  # messages of which `work` raised, and errors of the middleware
        self._context, self._work = node.context, work
        self._waiting: list[tuple[str, bytes]] = []  # the newest, or none
        self._closing = threading.Event()
        self.input = TopicInput(
            node,
            topic,
            self._put,
            types=types,
            reliability=reliability,
            callback_group=_group(),
        )
        self._thread = threading.Thread(target=self._run, name="newest-message", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Work on what was taken, then end the thread and the subscription."""
        self._closing.set()
        self._thread.join()
        self.input.close()

    def _put(self, type_: str, message: bytes) -> None:
        self.dropped += len(self._waiting)
        self._waiting = [(type_, message)]

    def _run(self) -> None:
        while not self._closing.is_set():
            subscription = self.input.subscription
            if subscription is None:
                self._closing.wait(_WAIT_NS / 1e9)
                continue
            self._take_all(subscription)
            while self._waiting:
                self._do(*self._waiting.pop())

    def _take_all(self, subscription: Any) -> None:
        """Wait for messages and events, take all there are."""
        from rclpy.impl.implementation_singleton import rclpy_implementation as rcl

        events = subscription.event_handlers
        try:
            with subscription.handle, self._context.handle:
                waiting = rcl.WaitSet(1, 0, 0, 0, 0, len(events), self._context.handle)
                waiting.clear_entities()
                waiting.add_subscription(subscription.handle)
                for event in events:
                    event.add_to_wait_set(waiting)
                waiting.wait(_WAIT_NS)
                while taken := subscription.handle.take_message(subscription.msg_type, True):
                    subscription.callback(taken[0])
                for event in events:
                    if event.is_ready(waiting):
                        _finish(event.execute(event.take_data()))
        except rcl.InvalidHandle:  # it was destroyed meanwhile
            self._closing.wait(_WAIT_NS / 1e9)
        except rcl.RCLError as error:
            if self._context.ok():  # else a signal has ended it in the middle of a call
                self._fail(error)
            self._closing.wait(_WAIT_NS / 1e9)

    def _do(self, type_: str, message: bytes) -> None:
        try:
            self._work(type_, message)
        except Exception as error:  # noqa: BLE001  (it is told, and the next one is another)
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failed += 1
        if self.failed == 1:  # the first of a kind that may come thirty times a second
            log.error("%s: could not be worked on", self.input.topic, exc_info=error)


def _finish(coroutine: Any) -> None:
    """Run what rclpy declares as a coroutine and what never waits."""
    with suppress(StopIteration):
        coroutine.send(None)


def _group() -> Any:
    """Return a callback group that no executor takes anything of.

    Nor the events: to wait for those of a reader is to wake up for its messages, again and
    again until they are taken.
    """
    from rclpy.callback_groups import ReentrantCallbackGroup

    class TakenElsewhere(ReentrantCallbackGroup):
        def can_execute(self, entity: Any) -> Any:
            del entity
            return False

    return TakenElsewhere()
