"""frame_recorder_node: camera and label topics in, bags for the agent's spool out."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from edge_perception.diagnostics import PERIOD_S, Health
from edge_perception.input import TopicInput, image_topic
from edge_perception.managed_node import ManagedNode
from edge_perception.process import run
from edge_perception.recorder.bag import TopicType
from edge_perception.recorder.definitions import definition_of
from edge_perception.recorder.events import EVENT_TYPES, Event, EventReader
from edge_perception.recorder.frame_recorder import FrameRecorder, Status
from edge_perception.recorder.message import LATE_NS, Message, moment_of, stamp_of
from edge_perception.recorder.model_questions import ModelQuestions
from edge_perception.recorder.parameters import LONGEST_S, RECORDER, Chosen, chosen
from edge_perception.recorder.pictures import COMPRESSED, RAW, frame_of_message, jpeg_of_raw
from edge_perception.recorder.spool import Spool
from edge_perception.recorder.told import Bounds, health_of, status_message

from edge_agent.data.frames.ros_subscription import message_class
from edge_agent.data.label_formats.label_topic import LABEL_TYPES
from fleet_model.errors import FrameError, StorageError
from fleet_model.types import NS_PER_S

_DEPTH = 100  # messages that wait in the middleware while the executor is busy


class FrameRecorderNode(ManagedNode):
    """Keeps frames while it is active. What it keeps is whole on disk when it is inactive."""

    def __init__(self) -> None:
        super().__init__("frame_recorder", RECORDER)
        self._recording: _Recording | None = None

    def configure(self, values: Mapping[str, Any]) -> None:
        """Open the spool."""
        wanted = chosen(values, self.get_fully_qualified_name())
        try:
            self._recording = _Recording(self, wanted)
        except OSError as error:
            raise StorageError(
                f"spool {wanted.spool.folder}: {error.strerror}; set the parameter spool to a "
                "folder that this user may write"
            ) from error

    def activate(self) -> None:
        """Listen."""
        assert self._recording
        self._recording.listen()

    def deactivate(self) -> None:
        """Listen no more, and make the bags whole."""
        if self._recording:
            self._recording.rest()

    def cleanup(self) -> None:
        """Let go of everything."""
        if self._recording:
            self._recording.close()
        self._recording = None

    def health(self) -> Health:
        """Return what is wrong: the disk before frames that do not come."""
        assert self._recording
        return self._recording.health()


class _Recording:
    """What runs from `on_configure` to `on_cleanup`. Everything in here is the executor's."""

    def __init__(self, node: Any, wanted: Chosen) -> None:
        from edge_perception_msgs.msg import RecorderStatus
        from edge_perception_msgs.srv import RecordEvent

        self._node, self._wanted = node, wanted
        self._topics: dict[str, TopicType] = {}
        self._recorder = FrameRecorder(wanted.recorder, Spool(wanted.spool, self._topics))
        self._questions: ModelQuestions | None = None
        if wanted.questions.any:
            keep = self._recorder.keep
            self._questions = ModelQuestions(wanted.questions, frame_of_message, keep)
        self._inputs: list[TopicInput] = []
        self._unreadable = Counter[str]()  # raw images, by what is wrong with them
        self._before: Status | None = None
        self._bounds = Bounds(
            wanted.spool.folder, wanted.recorder.max_bytes, wanted.spool.budget_bytes
        )
        self._events = node.resolve_topic_name("~/event")
        self._publisher = node.create_publisher(RecorderStatus, "~/status", 1)
        self._service = node.create_service(RecordEvent, "~/record_event", self._serve)
        self._timer = node.create_timer(PERIOD_S, self._tell)

    def listen(self) -> None:
        """Take frames, labels and events."""
        values = self._wanted.values
        image = image_topic(self._node, values["image_topic"], values["transport"])
        take = self._take_raw if values["transport"] == "raw" else self._take
        self._listen(image, (RAW if take == self._take_raw else COMPRESSED,), take)
        for topic in values["label_topics"]:
            self._listen(topic, LABEL_TYPES, self._take)
        for topic in (self._events, *values["event_topics"]):
            take_event = partial(self._take_event, EventReader(topic))
            self._listen(topic, EVENT_TYPES, take_event, may_be_silent=True)

    def rest(self) -> None:
        """Take nothing more, forget what is buffered, make the bags whole."""
        for topic_input in self._inputs:
            topic_input.close()
        self._inputs = []
        self._recorder.rest()

    def close(self) -> None:
        """End it all."""
        self.rest()
        if self._questions:
            self._questions.close()
        self._recorder.close()
        if self._node.context.ok():  # no signal has ended it
            self._tell()
        self._node.destroy_timer(self._timer)
        self._node.destroy_service(self._service)
        self._node.destroy_publisher(self._publisher)

    def health(self) -> Health:
        """Return how it is; what was left out since the last time is a warning."""
        status = self._recorder.status()
        problems = [topic_input.problem() for topic_input in self._inputs]
        if self._questions:
            problems.append(self._questions.error)
        counts = {
            "lost in transport": sum(topic_input.lost for topic_input in self._inputs),
            "empty deliveries": sum(topic_input.empty for topic_input in self._inputs),
            **{f"unreadable: {why}": count for why, count in self._unreadable.items()},
            **(self._questions.counts if self._questions else {}),
        }
        found = health_of(status, self._before, problems, self._bounds)
        self._before = status
        return found._replace(values={**found.values, **counts})

    def _listen(
        self, topic: str, types: Sequence[str], take: Callable[..., None], **options: Any
    ) -> None:
        name = self._node.resolve_topic_name(topic)
        options = {"reliability": self._wanted.values["reliability"], "depth": _DEPTH, **options}
        listener = TopicInput(self._node, topic, partial(take, name), types=types, **options)
        self._inputs.append(listener)

    def _take_raw(self, topic: str, type_: str, data: bytes) -> None:
        try:
            encoded = jpeg_of_raw(data, topic, self._wanted.values["jpeg_quality"])
        except FrameError as error:
            self._unreadable[error.reason] += 1
            return
        self._take(f"{topic}/compressed", COMPRESSED, encoded)

    def _take(self, topic: str, type_: str, data: bytes) -> None:
        message = self._message(topic, type_, data)
        self._recorder.offer(message)
        if message.is_frame and self._questions:
            self._questions.offer(message)

    def _message(self, topic: str, type_: str, data: bytes) -> Message:
        self._declare(topic, type_)
        now_ns = self._now_ns()
        has_stamp = hasattr(message_class(type_), "header")
        moment_ns = moment_of(stamp_of(data), now_ns) if has_stamp else now_ns
        return Message(topic, data, now_ns, moment_ns, is_frame=type_ == COMPRESSED)

    def _serve(self, request: Any, response: Any) -> Any:
        if not self._inputs:
            response.message = "this recorder is not active: activate it first"
            return response
        event = Event(request.reason, 0, request.before_s, request.after_s)
        response.message = self._follow(event)
        response.success = not response.message.startswith("nothing")
        return response

    def _follow(self, event: Event) -> str:
        """Keep what is around an event; return what came of it, in words."""
        settings, now_ns = self._wanted.recorder, self._now_ns()
        if not (event.before_s <= LONGEST_S and event.after_s <= LONGEST_S):  # NaN is not, either
            return f"nothing is kept: before_s and after_s are at most {LONGEST_S:g}"
        before_ns = settings.before_ns if event.before_s < 0 else round(event.before_s * NS_PER_S)
        after_ns = settings.after_ns if event.after_s < 0 else round(event.after_s * NS_PER_S)
        is_ours = abs(now_ns - event.stamp_ns) <= settings.before_ns + LATE_NS
        at_ns = event.stamp_ns if is_ours else now_ns
        note = self._note(event._replace(stamp_ns=at_ns), before_ns, after_ns, now_ns)
        done = self._recorder.trigger(at_ns, before_ns, after_ns, note)
        if done.refusal:
            return f"nothing is kept: event limit {done.refusal}"
        if error := self._recorder.status().error:
            return f"nothing is kept: {self._wanted.spool.folder}: {error}"
        missing = f"; {done.missing_ns / 1e9:.1f} s of it are not in the buffer"
        return (
            f"{done.frames} frames of the {before_ns / 1e9:g} s before are kept, and those of the "
            f"{after_ns / 1e9:g} s after{missing if done.missing_ns else ''}"
        )

    def _note(self, event: Event, before_ns: int, after_ns: int, now_ns: int) -> Message:
        """Return the event as a message for the bag."""
        from edge_perception_msgs.msg import RecordEvent
        from rclpy.serialization import serialize_message

        message = RecordEvent(
            reason=event.reason, before_s=before_ns / NS_PER_S, after_s=after_ns / NS_PER_S
        )
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(event.stamp_ns, NS_PER_S)
        data = bytes(serialize_message(message))
        self._declare(self._events, EVENT_TYPES[0])
        return Message(self._events, data, now_ns, event.stamp_ns, is_frame=False)

    def _take_event(self, reader: EventReader, topic: str, type_: str, data: bytes) -> None:
        event = reader.read(type_, data)
        if event:
            self._node.get_logger().info(f"event {event.reason}: {self._follow(event)}")

    def _declare(self, topic: str, type_: str) -> None:
        if topic not in self._topics:
            whole = type_.replace("/", "/msg/")
            self._topics[topic] = TopicType(whole, definition_of(whole))
            if not self._topics[topic].definition:
                self._node.get_logger().warning(
                    f"{topic}: the definition of {whole} is not installed; bags will lack it"
                )

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _tell(self) -> None:
        now = self._node.get_clock().now().to_msg()
        status = self._recorder.status()
        self._publisher.publish(status_message(status, self._bounds, now))


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until a signal; return the exit code."""
    return run(FrameRecorderNode, args)


if __name__ == "__main__":
    sys.exit(main())
