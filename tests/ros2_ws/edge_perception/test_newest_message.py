"""A real topic, whose messages a thread takes past the executor."""

import threading

import pytest
from ros_robot import Listener, until

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("domain")]
pytest.importorskip("rclpy", reason="needs ROS 2: `make test-ros`")

from edge_perception.newest_message import NewestMessage  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402
from std_msgs.msg import String  # noqa: E402

TYPES = ["std_msgs/String"]


@pytest.fixture
def node(domain):
    spun = Listener()
    yield spun.node
    spun.close()


@pytest.fixture
def say(node):
    """Return what publishes texts."""
    publisher = node.create_publisher(String, "said", QoSProfile(depth=100))

    def publish(*texts):
        until(publisher.get_subscription_count, lambda: "nobody listens")
        for text in texts:
            publisher.publish(String(data=text))

    return publish


def text_of(message):
    return deserialize_message(message, String).data


def test_while_it_works_the_newest_message_takes_the_place_of_those_that_wait(node, say):
    done, begun, go = [], threading.Event(), threading.Event()

    def work(type_, message):
        begun.set()
        assert go.wait(240)
        done.append((type_, text_of(message)))

    newest = NewestMessage(node, "said", work, types=TYPES)
    say("a")
    assert begun.wait(240)
    say("b", "c", "d")
    go.set()
    until(lambda: newest.input.received == 4, lambda: newest.input.received)
    newest.close()
    assert done[0] == (TYPES[0], "a")
    assert done[-1] == (TYPES[0], "d")
    assert len(done) + newest.dropped == 4
    assert newest.failed == 0


def test_one_failure_ends_nothing_and_is_logged_once(node, say, caplog):
    done = []

    def work(type_, message):
        done.append(int(text_of(message)))
        assert done[-1] > 2

    newest = NewestMessage(node, "said", work, types=TYPES)
    for number in (1, 2, 3):
        say(str(number))
        until(lambda number=number: number in done, lambda: done)
    newest.close()
    assert (done, newest.failed) == ([1, 2, 3], 2)
    assert [record.message for record in caplog.records] == ["/said: could not be worked on"]


def test_nothing_is_taken_once_it_is_closed(node, say):
    done = []
    newest = NewestMessage(node, "said", lambda _, message: done.append(message), types=TYPES)
    say("a")
    until(lambda: done, lambda: "nothing came")
    newest.close()
    assert newest.input.subscription is None
    assert not [thread for thread in threading.enumerate() if thread.name == "newest-message"]


def test_events_of_the_topic_are_heard_although_no_executor_waits_for_them(node):
    """Whoever waits for the events of a reader wakes up for each of its messages."""
    offered = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_publisher(String, "said", offered)
    newest = NewestMessage(node, "said", print, types=TYPES, reliability="reliable")
    until(lambda: "reliability" in newest.input.problem(), newest.input.problem)
    newest.close()
    assert "listener does not offer the reliability that was asked for" in newest.input.problem()
