"""perception_node between a camera driver and a listener: three processes, real bags and models."""

import signal

import cv2
import numpy as np
import pytest
from bag_writer import BagWriter
from ros_robot import stamp_ns, until, values_of

from fleet_model.durable import point_durably

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy", reason="needs ROS 2: `make test-ros`")

CAMERA, NAMESPACE = "/left/camera/image", "/robot_7"
NODE = f"{NAMESPACE}/perception"
LABELS = {"circle", "square", "star"}
SHIPPED_PROFILE = "ros2_ws/src/edge_bringup/config/fast_dds.xml"
FRAMES, RATE_HZ, PERIOD_NS = 90, 30, 33_333_333


@pytest.fixture
def model(robot):
    """Return the agent's link to version 1; version 2 lies beside it."""
    point_durably(robot / "current", "versions/1")
    return robot / "current"


@pytest.fixture
def perception(processes, model):
    """Return what starts the node with more parameters."""

    def start(*words, **parameters):
        given = {"model": model, "image_topic": "image", **parameters}
        remap = ("-r", f"image:={CAMERA}", "-r", f"__ns:={NAMESPACE}")
        return processes.node("perception_node", *remap, *words, parameters=given.items())

    return start


@pytest.fixture
def jpeg_bag(tmp_path):
    """Write three seconds of a moving 1280x720 picture as JPEG."""
    rows = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 16, 3), np.uint8), (1280, 720))
    writer, messages = BagWriter(), []
    for index in range(FRAMES):
        picture = np.roll(rows, 7 * index, axis=1)
        content = cv2.imencode(".jpg", picture)[1].tobytes()
        stamp = writer.START_NS + index * PERIOD_NS
        messages.append((CAMERA, stamp, writer.jpeg(stamp, content)))
    return writer.write(tmp_path / "jpegs", messages)


@pytest.fixture
def raw_bag(tmp_path):
    writer = BagWriter()
    rows = np.random.default_rng(1).integers(0, 256, (480, 640 * 3), np.uint8)
    stamps = [writer.START_NS + index * PERIOD_NS for index in range(FRAMES)]
    messages = [(CAMERA, stamp, writer.raw(stamp, rows)) for stamp in stamps]
    return writer.write(tmp_path / "raw", messages)


def end(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(240) == 0, process.log
    assert not [line for line in process.log if "Traceback" in line]


def counts_at_the_end(diagnostics, player, node):
    """Return (level, message, values) once everything was published and nothing more arrives."""

    def why():
        return node.log, player.log, values_of(diagnostics) if diagnostics else ""

    until(lambda: any("published" in line for line in player.log), why)
    seen = len(diagnostics)
    until(lambda: len(diagnostics) > seen + 1, why)
    while values_of(diagnostics)[2]["answers since last time"] != "0":
        seen = len(diagnostics)
        until(lambda seen=seen: len(diagnostics) > seen, why)
    return values_of(diagnostics)


def model_infos(listener, node):
    """Return what the node tells of its model; it has found the listener when the first is there.

    Results that it publishes before reach nobody.
    """
    from edge_perception_msgs.msg import ModelInfo
    from rclpy.qos import DurabilityPolicy, QoSProfile

    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    infos = listener.collect(ModelInfo, f"{NODE}/model_info", latched)
    until(lambda: [info.version for info in infos] == [1], lambda: node.log)
    return infos


def test_a_bag_of_jpegs_is_answered_while_the_model_is_switched(
    perception, processes, listener, jpeg_bag, model
):
    from diagnostic_msgs.msg import DiagnosticArray
    from vision_msgs.msg import Classification

    results = listener.collect(Classification, f"{NODE}/classification")
    diagnostics = listener.collect(DiagnosticArray, "/diagnostics")
    node = perception(transport="compressed", output="vision_msgs")
    until(lambda: diagnostics, lambda: node.log)
    infos = model_infos(listener, node)

    player = processes.player(jpeg_bag, f"{CAMERA}/compressed", "reliable", RATE_HZ)
    until(lambda: len(results) > FRAMES // 3, lambda: (node.log, player.log))
    point_durably(model, "versions/2")
    until(lambda: [info.version for info in infos] == [1, 2], lambda: (node.log, player.log))
    level, message, values = counts_at_the_end(diagnostics, player, node)

    assert (level, message) == (0, "answers images")
    assert infos[1].classes == ["circle", "square", "star"]
    assert values["model version"] == "2"
    assert values["model runs by"] == "Interpreter"
    assert values["listening to"] == "sensor_msgs/CompressedImage, reliable"
    lost = ("images without a model", "images that cannot be read", "failures")
    assert [values[name] for name in (*lost, "images lost in transport")] == ["0"] * 4
    # All of them, but for those that a machine which stood still had newer ones for.
    dropped = int(values["images dropped for newer ones"])
    assert len(results) + dropped == FRAMES == int(values["images received"])
    assert len(results) >= FRAMES // 2, player.log
    sent = [BagWriter.START_NS + index * PERIOD_NS for index in range(FRAMES)]
    stamps = [stamp_ns(result) for result in results]
    assert stamps == sorted(set(stamps))
    assert set(stamps) <= set(sent)
    for result in results:
        assert result.header.frame_id == "camera"
        assert {one.class_id for one in result.results} == LABELS
        assert sum(one.score for one in result.results) == pytest.approx(1)
    end(node)


def test_raw_best_effort_images_arrive_by_the_shipped_profile(
    perception, processes, listener, raw_bag
):
    from diagnostic_msgs.msg import DiagnosticArray
    from edge_perception_msgs.msg import Predictions

    results = listener.collect(Predictions, f"{NODE}/classification")
    diagnostics = listener.collect(DiagnosticArray, "/diagnostics")
    node = perception(output="edge_perception_msgs", threshold=0.34)
    model_infos(listener, node)
    player = processes.player(raw_bag, CAMERA, "best_effort", RATE_HZ)
    _, _, values = counts_at_the_end(diagnostics, player, node)
    assert values["listening to"] == "sensor_msgs/Image, best effort"
    assert int(values["images received"]) >= 0.99 * FRAMES
    dropped = int(values["images dropped for newer ones"])
    assert len(results) + dropped == int(values["images received"])
    for result in results:
        assert result.model_version == 1
        assert len(result.predictions) <= 2
        assert all(one.score >= 0.34 and not one.has_box for one in result.predictions)
    end(node)
