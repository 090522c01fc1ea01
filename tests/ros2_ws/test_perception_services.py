"""What an operator asks of a running perception_node, and what it says when something is wrong."""

import shutil

import cv2
import numpy as np
import pytest
from ros_robot import until, values_of

from fleet_model.durable import point_durably

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy", reason="needs ROS 2: `make test-ros`")

CAMERA, NODE = "/camera/image", "/perception"
JPEG = cv2.imencode(".jpg", np.full((120, 160, 3), 90, np.uint8))[1].tobytes()


@pytest.fixture
def health(listener):
    """Return what gives the node's newest (level, message, values), and waits for a sentence."""
    from diagnostic_msgs.msg import DiagnosticArray

    found = listener.collect(DiagnosticArray, "/diagnostics")

    def says(words, process):
        until(lambda: found and words in values_of(found)[1], lambda: (process.log, found[-1:]))
        return values_of(found)

    return says


@pytest.fixture
def camera(listener):
    """Return what publishes one JPEG and gives its number as the stamp."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CompressedImage

    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = listener.node.create_publisher(CompressedImage, f"{CAMERA}/compressed", qos)

    def send(number, data=JPEG):
        message = CompressedImage(format="jpeg", data=data)
        message.header.stamp.sec = number
        publisher.publish(message)

    return send


def perception(processes, robot, **parameters):
    given = {"model": robot / "current", "transport": "compressed", **parameters}
    return processes.node("perception_node", "-r", f"image:={CAMERA}", parameters=given.items())


def until_answered(camera, results, number, node):
    """Send the same picture until it is answered: the subscription may only just be there."""

    def answered():
        camera(number)
        return any(one.header.stamp.sec == number for one in results)

    until(answered, lambda: node.log)


def test_a_first_model_may_come_later_and_one_that_does_not_load_changes_nothing(
    processes, listener, robot, health, camera
):
    from edge_perception_msgs.msg import Predictions
    from std_srvs.srv import Trigger

    results = listener.collect(Predictions, f"{NODE}/classification")
    node = perception(processes, robot, output="edge_perception_msgs")
    level, message, values = health("no model answers", node)
    assert (level, values["model version"]) == (2, "none")
    assert message.endswith("current: there is no such bundle yet. The agent installs one.")
    point_durably(robot / "current", "versions/1")
    until_answered(camera, results, 1, node)
    assert results[-1].model_version == 1
    log = "".join(node.log)
    assert "model version 1 answers (image-classifier, fp32, Interpreter, the shared model)" in log
    assert f"listens to {CAMERA}/compressed: sensor_msgs/CompressedImage, best effort" in log

    (robot / "versions/2/head.tflite").write_bytes(b"no model")
    point_durably(robot / "current", "versions/2")
    answer = listener.call(Trigger, f"{NODE}/reload_model", Trigger.Request())
    assert not answer.success
    assert answer.message.startswith("version 1 goes on, the model does not load: head.tflite")
    until_answered(camera, results, 2, node)
    assert results[-1].model_version == 1
    shutil.copy(robot / "versions/1/head.tflite", robot / "versions/2/head.tflite")
    answer = listener.call(Trigger, f"{NODE}/reload_model", Trigger.Request())
    assert (answer.success, answer.message) == (True, "version 2 answers now")
    until_answered(camera, results, 3, node)
    assert results[-1].model_version == 2


def test_it_can_be_disabled_set_reconfigured_and_looked_at(
    processes, listener, robot, health, camera
):
    from lifecycle_msgs.srv import ChangeState
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter
    from sensor_msgs.msg import CompressedImage
    from std_srvs.srv import SetBool
    from vision_msgs.msg import Classification

    point_durably(robot / "current", "versions/1")
    results = listener.collect(Classification, f"{NODE}/classification")
    node = perception(processes, robot, threshold=1.0)
    until_answered(camera, results, 1, node)
    assert results[-1].results == []  # answered, and nothing is above the threshold

    def change(name, value):
        parameters = [Parameter(name, value=value).to_parameter_msg()]
        request = SetParameters.Request(parameters=parameters)
        return listener.call(SetParameters, f"{NODE}/set_parameters", request).results[0]

    assert change("threshold", 0.0).successful
    assert "clean it up first" in change("threads", 2).reason
    until_answered(camera, results, 2, node)
    assert len(results[-1].results) == 3

    pictures = listener.collect(CompressedImage, f"{NODE}/debug_image/compressed")
    numbers = iter(range(3, 10**6))
    until(lambda: camera(next(numbers)) or pictures, lambda: node.log)
    drawn = cv2.imdecode(np.frombuffer(pictures[0].data, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape[1] >= 160
    assert pictures[0].header.stamp.sec > 0

    answer = listener.call(SetBool, f"{NODE}/enable", SetBool.Request(data=False))
    assert (answer.success, answer.message) == (True, "takes no images")
    health("disabled: call ~/enable", node)
    until(lambda: listener.node.count_subscribers(f"{CAMERA}/compressed") == 0, lambda: node.log)
    listener.call(SetBool, f"{NODE}/enable", SetBool.Request(data=True))
    until_answered(camera, results, 10**6 + 1, node)

    def transit(label):
        request = ChangeState.Request()
        request.transition.label = label
        return listener.call(ChangeState, f"{NODE}/change_state", request).success

    assert transit("deactivate")
    health("inactive", node)
    assert transit("cleanup")
    health("not configured", node)
    assert change("threads", 2).successful
    assert transit("configure")
    assert transit("activate")
    until_answered(camera, results, 10**6 + 2, node)
    health("answers images", node)


def test_it_says_why_nothing_arrives_and_what_cannot_be_read(
    processes, listener, robot, health, camera, domain
):
    from edge_perception_msgs.msg import Predictions
    from sensor_msgs.msg import Image

    point_durably(robot / "current", "versions/1")
    results = listener.collect(Predictions, f"{NODE}/classification")
    listener.collect(Image, "/nobody/image")
    unread = "images that cannot be read"
    node = perception(processes, robot, reliability="reliable", output="edge_perception_msgs")
    level, _, _ = health("listener does not offer the reliability that was asked for", node)
    assert level == 1
    node.terminate()
    assert node.wait(240) == 0, node.log

    node = perception(processes, robot, output="edge_perception_msgs", image_topic="/other")
    health("/other/compressed: no message for", node)
    # Topics that it publishes itself, or that nobody but a listener names, are of no help.
    named = health("nobody publishes it; camera topics in ROS domain", node)[1]
    assert named.endswith(f" {domain}: {CAMERA}/compressed")
    node.terminate()
    assert node.wait(240) == 0, node.log

    node = perception(processes, robot, transport="raw")
    health(f"but {CAMERA}/compressed is there: set the parameter transport to compressed", node)
    node.terminate()
    assert node.wait(240) == 0, node.log

    node = perception(processes, robot, output="edge_perception_msgs")
    until_answered(camera, results, 1, node)
    until(
        lambda: camera(2, JPEG[:200]) or "cut jpeg" in health("", node)[2][unread],
        lambda: health("", node),
    )
    camera(2, JPEG[:200])
    assert health("images cannot be read: ", node)[0] == 1
    until_answered(camera, results, 3, node)
    health("answers images", node)
    assert not [one for one in results if one.header.stamp.sec == 2]


def test_without_vision_msgs_its_own_messages_are_sent_or_the_lack_is_told(
    processes, listener, robot, health, camera, monkeypatch
):
    from edge_perception_msgs.msg import Predictions

    for name in ("AMENT_PREFIX_PATH", "LD_LIBRARY_PATH", "PYTHONPATH"):
        kept = [p for p in processes.environment[name].split(":") if "/vision_msgs" not in p]
        processes.environment[name] = ":".join(kept)
    point_durably(robot / "current", "versions/1")
    node = perception(processes, robot, output="vision_msgs")
    level, _, _ = health("output is vision_msgs, which is not installed", node)
    assert level == 2
    node.terminate()
    assert node.wait(240) == 0, node.log
    results = listener.collect(Predictions, f"{NODE}/classification")
    node = perception(processes, robot)
    until_answered(camera, results, 1, node)
