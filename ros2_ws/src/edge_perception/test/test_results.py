"""What a model finds, as messages."""

import numpy as np
import pytest
from edge_perception.perception.results import header_of, output_for
from edge_perception_msgs.msg import Predictions
from rclpy.serialization import deserialize_message, serialize_message

from fleet_model.types import Prediction

HEADER = header_of(1_760_000_000_123_456_789, "camera")
BOX = Prediction(label="person", score=np.float32(0.9), box=(10.0, 20.0, np.float32(30.0), 60.0))


def sent(output, *found):
    """Return the message as it arrives."""
    message = output.fill(HEADER, 7, found)
    return deserialize_message(serialize_message(message), output.message)


def test_our_own_messages_hold_classes_boxes_and_texts():
    output = output_for("boxes", "edge_perception_msgs")
    assert output.topic == "~/detections"
    message = sent(output, BOX, Prediction(text="hello"))
    assert (message.header, message.model_version) == (HEADER, 7)
    box, text = message.predictions
    assert (box.label, box.has_box, text.has_box, text.text) == ("person", True, False, "hello")
    assert box.score == pytest.approx(0.9)
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == (10.0, 20.0, 30.0, 60.0)


def test_boxes_are_detections_of_vision_msgs():
    vision_msgs = pytest.importorskip("vision_msgs.msg")
    output = output_for("boxes", "auto")
    assert output.message is vision_msgs.Detection2DArray
    (detection,) = sent(output, BOX).detections
    assert detection.header == HEADER
    assert detection.results[0].hypothesis.class_id == "person"
    assert detection.results[0].hypothesis.score == pytest.approx(0.9)
    centre = detection.bbox.center.position
    assert (centre.x, centre.y) == (20.0, 40.0)
    assert (detection.bbox.size_x, detection.bbox.size_y) == (20.0, 40.0)


def test_classes_are_a_classification_of_vision_msgs_best_first():
    vision_msgs = pytest.importorskip("vision_msgs.msg")
    output = output_for("class", "vision_msgs")
    assert (output.topic, output.message) == ("~/classification", vision_msgs.Classification)
    found = [Prediction(label="clear", score=0.75), Prediction(label="blocked", score=0.25)]
    message = sent(output, *found)
    assert [(one.class_id, one.score) for one in message.results] == [
        ("clear", 0.75),
        ("blocked", 0.25),
    ]


def test_a_text_has_no_standard_message():
    assert output_for("text", "auto").message is Predictions
