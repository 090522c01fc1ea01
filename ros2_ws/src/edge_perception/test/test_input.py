"""Which topic pictures come on."""

import pytest
import rclpy
from edge_perception.input import image_topic
from rclpy.node import Node


@pytest.fixture
def node():
    made = []

    def make(*remaps):
        rclpy.init(args=["--ros-args", *(word for one in remaps for word in ("-r", one))])
        made.append(Node("tested", namespace="/robot"))
        return made[0]

    yield make
    for one in made:
        one.destroy_node()
    rclpy.try_shutdown()


def test_relative_names_are_in_the_namespace(node):
    one = node()
    assert image_topic(one, "image", "raw") == "/robot/image"
    assert image_topic(one, "image", "compressed") == "/robot/image/compressed"
    assert image_topic(one, "/camera/image", "compressed") == "/camera/image/compressed"


def test_a_remap_of_the_image_counts_for_its_jpeg(node):
    one = node("image:=/camera/image_raw")
    assert image_topic(one, "image", "raw") == "/camera/image_raw"
    assert image_topic(one, "image", "compressed") == "/camera/image_raw/compressed"


def test_a_remap_of_the_jpeg_itself_comes_first(node):
    one = node("image:=/camera/image_raw", "image/compressed:=/other/jpeg")
    assert image_topic(one, "image", "compressed") == "/other/jpeg"
