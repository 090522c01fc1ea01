"""Results as ROS messages: those of vision_msgs where it is installed, else our own."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fleet_model.errors import SettingsError
from fleet_model.types import NS_PER_S, Prediction

OUTPUTS = ("auto", "vision_msgs", "edge_perception_msgs")
# What a model answers -> topic.
TOPICS = {"class": "~/classification", "boxes": "~/detections", "text": "~/text"}


class Output(NamedTuple):
    """How the answers of one model are sent."""

    topic: str
    message: type
    # (header, model version, predictions, best first) -> message
    fill: Callable[[Any, int, Sequence[Prediction]], Any]


def header_of(stamp_ns: int, frame_id: str) -> Any:
    """Return the std_msgs/Header that an image came with."""
    from builtin_interfaces.msg import Time
    from std_msgs.msg import Header

    seconds, nanoseconds = divmod(stamp_ns, NS_PER_S)
    return Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=frame_id)


def output_for(answer: str, wanted: str) -> Output:
    """Return how to send what a model answers.

    Args:
        answer: Task.answer.
        wanted: one of OUTPUTS. A text is always sent as our own message.

    Raises:
        SettingsError: vision_msgs is wanted and not installed.
    """
    from edge_perception_msgs.msg import Predictions

    own = Output(TOPICS[answer], Predictions, _predictions)
    if wanted == "edge_perception_msgs" or answer == "text":
        return own
    try:
        from vision_msgs.msg import Classification, Detection2DArray
    except ImportError:
        if wanted == "auto":
            return own
        raise SettingsError(
            "parameter output is vision_msgs, which is not installed: install "
            "ros-$ROS_DISTRO-vision-msgs, or set output to auto"
        ) from None
    if answer == "class":
        return Output(TOPICS[answer], Classification, _classification)
    return Output(TOPICS[answer], Detection2DArray, _detections)


# Messages take Python's own floats and bools only: a NumPy float32 travels as 0.0, with no error.


def _predictions(header: Any, version: int, found: Sequence[Prediction]) -> Any:
    from edge_perception_msgs.msg import Prediction as Message
    from edge_perception_msgs.msg import Predictions

    messages = []
    for one in found:
        message = Message(label=one.label, score=float(one.score), text=one.text)
        if one.box is not None:
            message.has_box = True
            message.x_min, message.y_min, message.x_max, message.y_max = map(float, one.box)
        messages.append(message)
    return Predictions(header=header, model_version=version, predictions=messages)


def _classification(header: Any, version: int, found: Sequence[Prediction]) -> Any:
    from vision_msgs.msg import Classification, ObjectHypothesis

    results = [ObjectHypothesis(class_id=one.label, score=float(one.score)) for one in found]
    return Classification(header=header, results=results)


def _detections(header: Any, version: int, found: Sequence[Prediction]) -> Any:
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    detections = []
    for one in found:
        if one.box is None:
            continue
        x0, y0, x1, y1 = map(float, one.box)
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = one.label, float(one.score)
        detection = Detection2D(header=header, results=[result])
        detection.bbox.center.position.x, detection.bbox.center.position.y = (
            (x0 + x1) / 2,
            (y0 + y1) / 2,
        )
        detection.bbox.size_x, detection.bbox.size_y = x1 - x0, y1 - y0
        detections.append(detection)
    return Detection2DArray(header=header, detections=detections)
