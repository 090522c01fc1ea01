"""The picture in a message: for the model, and as a JPEG where it is not encoded yet."""

from edge_perception.recorder.message import Message

from edge_agent.data.frames.cdr import parse_image
from edge_agent.data.frames.message import frame_of
from edge_agent.data.pictures.encode import encode_jpeg
from edge_agent.data.storage import Topic
from fleet_model.types import NS_PER_S, Frame

_SOURCE = "ros"
RAW, COMPRESSED = "sensor_msgs/Image", "sensor_msgs/CompressedImage"


def frame_of_message(message: Message) -> Frame:
    """Return the frame of a CompressedImage; FrameError if it is damaged."""
    topic = Topic(message.topic, COMPRESSED, "cdr", "", 0)
    return frame_of(message.data, topic, _SOURCE, message.arrived_ns)


def jpeg_of_raw(data: bytes, topic: str, quality: int) -> bytes:
    """Return a serialized Image as a serialized CompressedImage with the same header.

    Raises:
        FrameError: it is damaged, or no color picture.
    """
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import CompressedImage

    frame = frame_of(data, Topic(topic, RAW, "cdr", "", 0), _SOURCE, 0)
    image = parse_image(data, "cdr")
    message = CompressedImage(format="rgb8; jpeg compressed bgr8")
    message.header.frame_id = image.frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(image.stamp_ns, NS_PER_S)
    message.data.frombytes(encode_jpeg(frame.decode(), quality))
    return bytes(serialize_message(message))
