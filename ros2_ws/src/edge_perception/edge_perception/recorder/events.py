"""What counts as an event, and what is known of it."""

from typing import Any, NamedTuple

from edge_agent.data.frames.ros_subscription import message_class

EVENT_TYPES = ("edge_perception_msgs/RecordEvent", "std_msgs/Empty", "std_msgs/Bool")


class Event(NamedTuple):
    """Why frames around a moment are wanted."""

    reason: str = ""
    stamp_ns: int = 0  # 0: when it arrived
    before_s: float = -1.0  # below 0: as the parameter says
    after_s: float = -1.0


class EventReader:
    """Finds the events of one topic."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._was_true = False

    def read(self, type_: str, data: bytes) -> Event | None:
        """Return what a serialized message says; None if it is no event.

        A Bool is one when it becomes true: many sensors repeat what they see.
        """
        from rclpy.serialization import deserialize_message

        message: Any = deserialize_message(data, message_class(type_))
        if type_ == "std_msgs/Empty":
            return Event(self._topic)
        if type_ == "std_msgs/Bool":
            before, self._was_true = self._was_true, bool(message.data)
            return Event(self._topic) if self._was_true and not before else None
        stamp = message.header.stamp
        stamp_ns = stamp.sec * 10**9 + stamp.nanosec
        return Event(message.reason or self._topic, stamp_ns, message.before_s, message.after_s)
