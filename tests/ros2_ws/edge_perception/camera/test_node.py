"""camera_node as a process: real rclpy receives what it sends, and it is what its source has."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from bag_writer import BagWriter, encode

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy", reason="needs ROS 2: `make test-ros`")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402

T0 = BagWriter.START_NS
PERIOD_NS = 33_333_333
PATIENCE_S = 240
INACTIVE = (b"\0", "inactive: `ros2 lifecycle set` activates it")
TOPICS = {"image": Image, "image/compressed": CompressedImage, "camera_info": CameraInfo}


class Listener:
    """Keeps every message of the topics, reliably."""

    def __init__(self, topics, prefix=""):
        self.context = Context()
        self.context.init([])
        self.node = Node("listener", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.got = {topic: [] for topic in topics}
        self.health = []
        for topic in topics:
            self.node.create_subscription(
                TOPICS[topic], prefix + topic, self.got[topic].append, QoSProfile(depth=1000)
            )
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.keep_health, 100)

    def keep_health(self, message):
        self.health += [(status.level, status.message) for status in message.status]

    def wait_for(self, holds):
        end = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < end, f"it did not happen in time; {self.health[-3:]}"
            self.executor.spin_once(timeout_sec=0.05)

    def stamps(self, topic):
        return [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in self.got[topic]]

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def listen(workspace, domain):
    made = []

    def start(*topics, **options):
        made.append(Listener(topics, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


@contextmanager
def camera_node(words=(), **parameters):
    """Run the node; at the end it is told to stop, says nothing wrong and ends with 0."""
    given = [w for n, v in parameters.items() for w in ("-p", f"{n}:={json.dumps(v)}")]
    command = [sys.executable, "-m", "edge_perception.camera.node", "--ros-args", *words, *given]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        _, process.said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 0, process.said
    assert "Traceback" not in process.said


def a_bag(path, count=30):
    bags = BagWriter()
    messages = []
    for i in range(count):  # the header's stamp is earlier than the recorder's, as in life
        message = bags.jpeg(T0 + i * PERIOD_NS, encode(i))
        messages.append(("/camera", T0 + i * PERIOD_NS + 5_000_000, message))
    return bags.write(path, messages)


def a_calibration(path, width, height):
    matrices = {"camera_matrix": 9, "rectification_matrix": 9, "projection_matrix": 12}
    content = {name: {"data": [2.5] * count} for name, count in matrices.items()}
    content |= {"distortion_model": "plumb_bob", "distortion_coefficients": {"data": [0.5] * 5}}
    path.write_text(json.dumps({"image_width": width, "image_height": height, **content}))
    return f"file://{path}"


def test_a_bag_comes_out_as_it_was_recorded(listen, tmp_path):
    bag = a_bag(tmp_path / "bag")
    listener = listen(*TOPICS)
    begun_s = time.monotonic()
    more = {"frame_id": "front", "calibration": a_calibration(tmp_path / "front.yaml", 32, 24)}
    with camera_node(source=str(bag), stamps="recorded", wait_for_subscribers=3, **more):
        listener.wait_for(lambda: all(len(got) == 30 for got in listener.got.values()))
        assert time.monotonic() - begun_s >= 29 * PERIOD_NS / 1e9
        listener.wait_for(lambda: INACTIVE in listener.health)
    for topic in TOPICS:
        assert listener.stamps(topic) == [T0 + i * PERIOD_NS for i in range(30)]
        assert {message.header.frame_id for message in listener.got[topic]} == {"front"}
    assert [bytes(m.data) for m in listener.got["image/compressed"]] == [
        encode(i) for i in range(30)
    ]
    assert {m.format for m in listener.got["image/compressed"]} == {"jpeg"}
    last = listener.got["image"][29]
    assert (last.encoding, last.height, last.width, last.step) == ("rgb8", 24, 32, 96)
    assert abs(np.frombuffer(last.data, np.uint8).mean() - 49) < 1
    info = listener.got["camera_info"][0]
    assert (info.width, info.height, info.distortion_model) == (32, 24, "plumb_bob")
    assert [*info.d, *info.k, *info.r, *info.p] == [0.5] * 5 + [2.5] * 30


def test_a_video_comes_out_picture_by_picture_as_jpeg_and_raw(listen, tmp_path):
    video_clips = pytest.importorskip("video_clips")
    pytest.importorskip("av", reason="needs PyAV, the extra `video`")
    times_ms = [0, 33, 66, 150, 183]
    clip = video_clips.write_clip(tmp_path / "clip.mp4", times_ms, bf="0")
    listener = listen("image", "image/compressed")
    with camera_node(source=str(clip), stamps="recorded", wait_for_subscribers=2, speed=2.0):
        listener.wait_for(lambda: all(len(got) == 5 for got in listener.got.values()))
    assert listener.stamps("image") == [ms * 1_000_000 for ms in times_ms]
    assert listener.stamps("image/compressed") == listener.stamps("image")
    raw = [np.frombuffer(m.data, np.uint8).reshape(120, 160, 3) for m in listener.got["image"]]
    assert [video_clips.number_in(picture) for picture in raw] == [0, 1, 2, 3, 4]
    import cv2

    for number, message in enumerate(listener.got["image/compressed"]):
        picture = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
        assert video_clips.number_in(picture) == number


def test_a_loop_stamped_now_goes_on_and_is_told_to_be_well(listen, tmp_path):
    bag = a_bag(tmp_path / "bag", 3)
    before_ns = time.time_ns()
    listener = listen("image/compressed")
    with camera_node(source=str(bag), loop=True, transports="compressed", rate_hz=50.0):
        listener.wait_for(lambda: len(listener.got["image/compressed"]) > 10)
        listener.wait_for(lambda: (b"\0", "plays bag") in listener.health)
        assert listener.node.count_publishers("image") == 0
    stamps = listener.stamps("image/compressed")
    assert before_ns < stamps[0]
    assert stamps == sorted(set(stamps))


def test_raw_images_keep_their_padding_and_get_no_calibration_of_another_size(listen, tmp_path):
    bags = BagWriter()
    rows = np.random.default_rng(3).integers(0, 256, (10, 40), np.uint8)  # 12 pixels and 4 bytes
    message = bags.raw(T0, rows, "bgr8", width=12)
    bag = bags.write(tmp_path / "bag", [("/camera", T0, message)])
    listener = listen("image", "camera_info")
    wrong = a_calibration(tmp_path / "wrong.yaml", 12, 20)
    with camera_node(source=str(bag), transports="raw", wait_for_subscribers=2, calibration=wrong):
        listener.wait_for(lambda: all(listener.got.values()))
    (info,) = listener.got["camera_info"]
    assert (info.width, info.height, info.k[0], list(info.d)) == (12, 10, 0, [])
    (image,) = listener.got["image"]
    assert (image.encoding, image.height, image.width, image.step) == ("bgr8", 10, 12, 40)
    assert bytes(image.data) == rows.tobytes()


def test_a_lifecycle_manager_plays_it_twice(listen, tmp_path):
    bag = a_bag(tmp_path / "bag", 4)
    listener = listen("image/compressed")
    client = listener.node.create_client(ChangeState, "/camera/change_state")

    def change(transition):
        request = ChangeState.Request()
        request.transition.id = transition
        future = client.call_async(request)
        listener.wait_for(future.done)
        return future.result().success

    got = listener.got["image/compressed"]
    with camera_node(source=str(bag), autostart=False, wait_for_subscribers=1):
        listener.wait_for(client.service_is_ready)
        assert change(1)  # configure
        for count in (4, 8):
            assert change(3)  # activate
            listener.wait_for(lambda count=count: len(got) == count)
            listener.health.clear()
            listener.wait_for(lambda: INACTIVE in listener.health)
    assert [bytes(m.data) for m in got] == 2 * [encode(i) for i in range(4)]


def test_a_source_that_is_not_there_is_told_in_the_log_and_on_diagnostics(listen):
    listener = listen()
    with camera_node(source="/no/such") as process:
        listener.wait_for(lambda: (b"\2", "such: no such file or folder") in listener.health)
    assert "[camera]: such: no such file or folder" in process.said


def test_a_webcam_that_is_not_there_is_told_once_and_asked_again(listen):
    listener, words = listen(), "/dev/video97: no such camera; plugged-in cameras are /dev/video*"
    with camera_node(source="/dev/video97", retry_s=0.1) as process:
        listener.wait_for(lambda: listener.health.count((b"\2", words)) > 1)
    assert process.said.count(f"[camera]: {words}; it is asked again") == 1


def test_remaps_of_the_image_count_for_what_lies_beside_it(listen, tmp_path):
    bag = a_bag(tmp_path / "bag", 3)
    listener = listen("image/compressed", "camera_info", prefix="/front/")
    remap = ["-r", "image:=/front/image"]
    with camera_node(source=str(bag), wait_for_subscribers=2, words=remap):
        listener.wait_for(lambda: all(len(got) == 3 for got in listener.got.values()))


def test_a_value_that_cannot_be_ends_the_process_with_one_line(workspace, domain):
    command = [sys.executable, "-m", "edge_perception.camera.node", "--ros-args"]
    run = subprocess.run(
        [*command, "-p", "stamps:=then"], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert "stamps is 'then', expected one of now, recorded" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "a=b"], "parameter override rule: '-p a=b': it has another form; write -p NAME:="),
        (["-p", "rate:=[1,"], "'-p rate:=[1,': it has another form"),
        (["--params-file", "gone.yaml"], "'--params-file gone.yaml': Error opening YAML file; "),
        (["--params-file", "flat.yaml"], "Cannot have a value before ros__parameters at line 2; "),
    ],
)
def test_what_ros_cannot_read_of_the_command_line_is_one_line(words, said, domain, tmp_path):
    (tmp_path / "flat.yaml").write_text("camera:\n  rate: 1.0\n")
    run = subprocess.run(
        [sys.executable, "-m", "edge_perception.camera.node", "--ros-args", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=tmp_path,
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    (line,) = (line for line in run.stderr.splitlines() if line.startswith("node.py: "))
    assert said in line


def test_edge_agent_extracts_the_topic_byte_for_byte(workspace, domain, tmp_path):
    bag = a_bag(tmp_path / "bag", 5)
    words = ["extract", "ros:/image/compressed", "--out", str(tmp_path / "out"), "--json"]
    agent = subprocess.Popen(
        [sys.executable, "-m", "edge_agent", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with camera_node(source=str(bag), stamps="recorded", wait_for_subscribers=1) as node:
            for line in node.stderr:
                if "end of the recording; sent 5" in line:
                    break
            time.sleep(1)  # what was sent is on its way
            agent.send_signal(signal.SIGINT)
            printed, errors = agent.communicate(timeout=PATIENCE_S)
    finally:
        agent.kill()
    assert agent.returncode == 0, errors
    assert json.loads(printed.splitlines()[-1])["frames_written"] == 5
    found = {int(f.stem.rpartition("-")[2]): f.read_bytes() for f in tmp_path.rglob("out/**/*.jpg")}
    assert found == {T0 + i * PERIOD_NS: encode(i) for i in range(5)}
