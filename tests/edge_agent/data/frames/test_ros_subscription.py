"""What the middleware delivers, by value; a real one is in test_ros_topic.py."""

from types import SimpleNamespace

import pytest

from edge_agent.data.frames.ros_subscription import OfferedSubscription

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy", reason="needs ROS 2: `make test-ros`")


class Node:
    """A node with one publisher of JPEGs in its graph."""

    def resolve_topic_name(self, topic):
        return f"/{topic}"

    def get_publishers_info_by_topic(self, topic):
        from rclpy.qos import QoSProfile

        return [
            SimpleNamespace(
                topic_type="sensor_msgs/msg/CompressedImage", qos_profile=QoSProfile(depth=1)
            )
        ]

    def create_subscription(self, kind, topic, deliver, qos, **options):
        self.deliver = deliver


def test_a_delivery_without_a_message_is_counted_and_is_none():
    """Seen with rmw_fastrtps 9.3.3: a hundred of no bytes as a busy machine joins a stream."""
    node, received = Node(), []
    subscription = OfferedSubscription(node, "camera", lambda *message: received.append(message))
    subscription.tend()
    for message in (b"", b"\0\1\0\0jpeg", b""):
        node.deliver(message)
    assert received == [("sensor_msgs/CompressedImage", b"\0\1\0\0jpeg")]
    assert (subscription.arrived, subscription.empty) == (1, 2)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["front", "rear", "front"], "front, rear"),
        (["front", "_NODE_NAME_UNKNOWN_"], "front"),
        (["_NODE_NAME_UNKNOWN_"], "its publisher"),
        (["_CREATED_BY_BARE_DDS_APP_"], "its publisher"),
    ],
)
def test_a_silent_publisher_is_named_where_it_has_a_name(names, told):
    node = Node()
    node.get_publishers_info_by_topic = lambda topic: [SimpleNamespace(node_name=n) for n in names]
    subscription = OfferedSubscription(node, "camera", lambda *message: None)
    assert subscription.why().startswith(f"{told} sends nothing")
