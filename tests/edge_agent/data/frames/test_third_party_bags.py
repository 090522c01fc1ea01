"""Bags that other people's software wrote, from the package mvtb-data; its code is not imported."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.storage import Topic
from fleet_model.files.damage import DamageLog

SPEC = find_spec("mvtbdata")
pytestmark = [
    pytest.mark.base,
    pytest.mark.skipif(SPEC is None, reason="needs the package mvtb-data"),
]

FIRST_NS, PERIOD_NS = 1_700_000_000_000_000_000, 100_000_000
BAGS = ["test_ros1.bag", "test_ros2", "test_ros2/test_ros2.db3"]
TOPICS = {
    "/camera/compressed": "sensor_msgs/CompressedImage",
    "/camera/raw": "sensor_msgs/Image",
    "/imu/data": "sensor_msgs/Imu",
}


def bag(name):
    return Path(SPEC.submodule_search_locations[0]) / "data" / name


def by_rosbags(path, topic):
    """Yield (bag time, message bytes, message) of a topic, read by rosbags."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    with AnyReader([path], default_typestore=store) as reader:
        connections = [c for c in reader.connections if c.topic == topic]
        for connection, stamp, data in reader.messages(connections=connections):
            yield stamp, bytes(data), reader.deserialize(data, connection.msgtype)


@pytest.mark.parametrize("name", BAGS)
def test_topics_types_and_counts_are_right(name):
    topics = BagFrames(bag(name)).topics()
    encoding = "ros1" if name.endswith(".bag") else "cdr"
    assert [t._replace(definition="") for t in topics] == [
        Topic(topic, kind, encoding, "", 3) for topic, kind in TOPICS.items()
    ]
    assert all("std_msgs" in topic.definition for topic in topics)


@pytest.mark.parametrize("name", BAGS)
@pytest.mark.parametrize("topic", TOPICS)
def test_every_message_is_the_one_that_rosbags_reads(name, topic):
    damage = DamageLog()
    stored = list(BagFrames(bag(name)).stored((topic,), damage))
    assert [s.bag_ns for s in stored] == [FIRST_NS + i * PERIOD_NS for i in range(3)]
    expected = [(stamp, data) for stamp, data, _ in by_rosbags(bag(name), topic)]
    assert [(s.bag_ns, bytes(s.load())) for s in stored] == expected
    assert not damage


@pytest.mark.parametrize("name", BAGS)
def test_raw_pictures_have_the_pixels_of_the_message(name):
    damage = DamageLog()
    frames = [entry.load() for entry in BagFrames(bag(name), "/camera/raw").entries(damage)]
    messages = [message for _, _, message in by_rosbags(bag(name), "/camera/raw")]
    assert len(frames) == len(messages) == 3
    for frame, message in zip(frames, messages, strict=True):
        stamp = message.header.stamp
        assert frame.stamp_ns == stamp.sec * 10**9 + stamp.nanosec
        assert frame.format == message.encoding
        rows = message.data.reshape(message.height, message.step)
        pixels = frame.pixels()
        assert pixels.dtype == np.uint8
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        expected = rows[:, : message.width * channels].reshape(pixels.shape)
        if message.encoding.startswith("bgr"):
            expected = expected[..., ::-1]
        assert np.array_equal(pixels, expected)
    assert not damage


@pytest.mark.parametrize("name", BAGS)
def test_compressed_pictures_are_the_bytes_of_the_message(name):
    damage = DamageLog()
    source = BagFrames(bag(name), "/camera/compressed")
    frames = [entry.load() for entry in source.entries(damage)]
    messages = [message for _, _, message in by_rosbags(bag(name), "/camera/compressed")]
    assert len(frames) == len(messages) == 3
    for frame, message in zip(frames, messages, strict=True):
        assert bytes(frame.data) == message.data.tobytes()
        assert frame.decode().shape == (frame.height, frame.width, 3)
    assert not damage
