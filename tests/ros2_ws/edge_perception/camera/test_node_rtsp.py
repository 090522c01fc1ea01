"""camera_node as a process on an RTSP camera that comes late, breaks off and comes back."""

import itertools
import re
import signal
import time

import cv2
import numpy as np
import pytest
from free_ports import free_port

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy", reason="needs ROS 2: `make test-ros`")
pytest.importorskip("av", reason="needs PyAV, the extra `video`")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from ros_robot import stamp_ns, until, values_of  # noqa: E402
from rtsp_server import RtspServer  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from video_clips import number_in, packets  # noqa: E402

PERIOD_S = 0.03


def endless(first=0, clip=None):
    """Yield packets as a camera sends them, one after the other, until the connection breaks."""
    clip = clip or [data for _, data in packets("h264", 20)]
    for packet in itertools.islice(itertools.cycle(clip), first, None):
        time.sleep(PERIOD_S)
        yield packet


def pictures(messages):
    """Return the numbers that JPEG or raw messages show."""
    found = []
    for message in messages:
        data = np.frombuffer(message.data, np.uint8)
        if isinstance(message, Image):
            picture = data.reshape(message.height, message.step)[:, : 3 * message.width]
            found.append(number_in(picture.reshape(message.height, message.width, 3)))
        else:
            found.append(number_in(cv2.imdecode(data, cv2.IMREAD_COLOR)))
    return found


@pytest.fixture
def serve():
    servers = []

    def start(clips, port, **options):
        servers.append(RtspServer(clips, port=port, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_camera_that_comes_late_breaks_off_and_comes_back_is_published_whenever_it_is_there(
    processes, listener, serve
):
    port, user = free_port(), {"user": "robot", "password": "hunter2"}
    compressed = listener.collect(CompressedImage, "/front/image/compressed")
    raw = listener.collect(Image, "/front/image")
    infos = listener.collect(CameraInfo, "/front/camera_info")
    diagnostics = listener.collect(DiagnosticArray, "/diagnostics")
    begun_ns = time.time_ns()
    parameters = {"source": f"rtsp://robot:hunter2@127.0.0.1:{port}/live", "retry_s": 0.2}
    node = processes.node(
        "camera_node", "-r", "__ns:=/front", "-r", "__node:=door", parameters=parameters.items()
    )

    def state():
        return values_of(diagnostics) if diagnostics else (None, "", {})

    def why():
        return state(), node.log

    name = f"rtsp://127.0.0.1:{port}/live"
    until(
        lambda: state()[0] == 1 and "refused" in state()[1], why
    )  # at first it only has no picture
    assert re.fullmatch(
        rf"{name}: no picture for \d s: Connection refused; trying again", state()[1]
    )

    server = serve([endless()], port, **user)
    until(lambda: len(raw) > 20 and len(compressed) > 20, why)
    until(lambda: state()[:2] == (0, f"plays {name}"), why)

    server.close()
    until(lambda: state()[0] == 1, why)
    assert "; trying again" in state()[1]
    before = len(raw), len(compressed)

    # Without a key frame at first: of pictures that are not whole none is shown.
    serve([endless(first=13)], port, **user)
    until(lambda: len(raw) > before[0] + 20 and len(compressed) > before[1] + 20, why)
    until(lambda: state()[:2] == (0, f"plays {name}"), why)
    for lost in ("1 x connection lost", "7 x before the first key frame"):
        assert f"{lost}, first {name} before " in state()[2]["not read"]
    node.send_signal(signal.SIGTERM)
    assert node.wait(240) == 0, node.log

    for messages in (raw, compressed):
        assert set(pictures(messages)) <= set(range(20))
        stamps = [stamp_ns(message) for message in messages]
        assert stamps == sorted(set(stamps))
        assert begun_ns < stamps[0] < stamps[-1] < time.time_ns()
        assert {message.header.frame_id for message in messages} == {"camera"}
    assert {stamp_ns(message) for message in raw} <= {stamp_ns(message) for message in infos}
    assert {(info.width, info.height) for info in infos} == {(160, 120)}
    said = "".join([*node.log, *(f"{one}" for one in diagnostics)])
    assert f"{name}: it ended the stream; trying again in" in said
    assert "hunter" not in said
    assert "Traceback" not in said
