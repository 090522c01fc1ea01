import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from edge_agent.data.frames.live import LiveQueue, ending_at_signals
from edge_agent.data.frames.message import frame_of
from edge_agent.data.frames.ros_topic import open_topic
from edge_agent.data.frames.source import is_live
from edge_agent.data.labels import LabelSettings, labelled_entries
from edge_agent.data.storage import Topic
from fleet_model.errors import FrameError, SettingsError
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.base

CAMERA = Topic("/camera", "sensor_msgs/CompressedImage", "cdr", "", 0)


def times(queue, damage):
    return [entry.time_ns for entry in queue.entries(damage)]


def test_a_full_queue_drops_its_oldest_messages_and_counts_them():
    queue, damage = LiveQueue("ros/camera", 3), DamageLog()
    for time_ns in range(10):
        queue.put(time_ns, None)
    queue.end(None)
    assert times(queue, damage) == [7, 8, 9]
    assert damage.sentence() == "7 x queue full, first ros/camera before 7"


def test_messages_that_the_middleware_lost_are_counted_up_to_the_end():
    queue, damage = LiveQueue("ros/camera", 3), DamageLog()
    queue.put(5, None)
    queue.lost("lost in transport", 2)
    queue.put(6, None)
    queue.lost("lost in transport", 1)
    queue.end(None)
    assert times(queue, damage) == [5, 6]
    assert damage.sentence() == "3 x lost in transport, first ros/camera before 6"


def test_what_came_before_a_failure_is_delivered_first():
    queue = LiveQueue("ros/camera", 3)
    queue.put(5, None)
    queue.end(FrameError("the camera is gone"))
    entries = queue.entries(DamageLog())
    assert next(entries).time_ns == 5
    with pytest.raises(FrameError, match="the camera is gone"):
        next(entries)


def test_a_message_that_is_no_picture_fails_when_it_is_loaded():
    queue = LiveQueue("ros/camera", 3)
    queue.put(5, partial(frame_of, b"\0\1\0\0", CAMERA, "ros", 5))
    with pytest.raises(FrameError, match=r"^ros/camera at 5: ") as caught:
        next(queue.entries(DamageLog())).load()
    assert caught.value.reason == "bad message"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_only_the_first_signal_stops_and_the_handlers_come_back(number):
    before, stops, second = signal.getsignal(number), [], []
    signal.signal(number, lambda *_: second.append(1))
    try:
        with ending_at_signals(lambda: stops.append(1)):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert (stops, second) == ([1], [1, 1])
    finally:
        signal.signal(number, before)


def test_a_path_with_the_prefix_is_a_topic_and_needs_no_file(tmp_path):
    for text in ("ros:/front/image", "ros:front/image", "ros://front/image/"):
        assert is_live(Path(text))
        assert open_topic(Path(text)).topic == "/front/image"
    assert open_topic(Path("ros:/front/image"), "/front/image").topic == "/front/image"
    with pytest.raises(SettingsError, match="ros:/front names its topic already; leave out --top"):
        open_topic(Path("ros:/front"), "/rear")
    with pytest.raises(FrameError, match="no such file"):
        next(labelled_entries(tmp_path / "ros:", LabelSettings(), DamageLog()))


def test_without_ros_the_error_says_what_to_do(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "rclpy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rclpy", None)
    expected = r"^ros:/front: needs ROS 2 \(.*rclpy.*\); run the setup script of your ROS distrib"
    with pytest.raises(FrameError, match=expected):
        next(labelled_entries(Path("ros:/front"), LabelSettings(), DamageLog()))
