import logging
import os
import signal
import threading
import time
from pathlib import Path

import av
import pytest
from free_ports import free_port
from rtsp_server import RtspServer
from video_clips import number_in, packets, write_clip

from edge_agent.data.frames.source import source_path
from edge_agent.data.frames.video.camera import CameraFrames, CameraSettings
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

QUICK = CameraSettings(queue_frames=1000, patience_s=60, wait_s=0.01)


@pytest.fixture(scope="module")
def clip():
    """Return 20 packets with a key frame every ten."""
    return [data for _, data in packets("h264", 20)]


@pytest.fixture
def serve():
    """Return what starts a camera; it is gone after the test."""
    servers = []

    def start(clips, **options):
        servers.append(RtspServer(clips, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def numbers(camera, damage, count):
    """Return the numbers of the next pictures, then stop the camera."""
    found = []
    for entry in camera.entries(damage):
        frame = entry.load()
        assert frame.stamp_ns == entry.time_ns
        found.append(number_in(frame.decode()))
        if len(found) == count:
            break
    camera.stop()
    return found


def test_pictures_of_a_stream_arrive_stamped_by_this_machines_clock(serve, clip):
    server = serve([clip])
    camera = CameraFrames(source_path(f"rtsp://127.0.0.1:{server.port}/live"), QUICK)
    begun_ns, stamps, damage = time.time_ns(), [], DamageLog()
    for number, entry in enumerate(camera.entries(damage)):
        frame = entry.load()
        assert (number_in(frame.decode()), frame.width, frame.height) == (number, 160, 120)
        stamps.append(frame.stamp_ns)
        if number == 19:
            break
    assert begun_ns < stamps[0]
    assert stamps == sorted(stamps)
    assert stamps[-1] < time.time_ns()
    camera.stop()


def test_a_camera_that_went_away_is_connected_again_and_told(serve, clip, caplog):
    server = serve([clip, clip[13:], clip])
    camera = CameraFrames(source_path(f"rtsp://127.0.0.1:{server.port}/live"), QUICK)
    damage = DamageLog()
    # the second time it has no key frame to begin with
    assert numbers(camera, damage, 40) == [*range(20), *range(20)]
    losses = {loss.kind: loss.count for loss in damage.all()}
    assert losses["connection lost"] == 2
    assert losses["before the first key frame"] == 7
    assert "it ended the stream; trying again" in caplog.text


def test_a_server_that_starts_again_on_its_port_is_found(serve, clip):
    port = free_port()
    servers = [serve([clip], port=port)]
    camera = CameraFrames(source_path(f"rtsp://127.0.0.1:{port}/live"), QUICK)
    found, damage = [], DamageLog()
    for entry in camera.entries(damage):
        found.append(number_in(entry.load().decode()))
        if len(found) == 20:
            servers[0].close()
            servers.append(serve([clip], port=port))
        if len(found) == 40:
            break
    assert found == [*range(20), *range(20)]


def test_lost_and_damaged_packets_cost_the_pictures_up_to_the_next_key_frame(serve, clip):
    server = serve([[*clip[:3], *clip[4:], *clip]])
    camera = CameraFrames(source_path(f"rtsp://127.0.0.1:{server.port}/live"), QUICK)
    damage = DamageLog()
    assert numbers(camera, damage, 33) == [0, 1, 2, *range(10, 20), *range(20)]
    assert (damage.all()[0].kind, damage.all()[0].count) == ("after a lost frame", 6)


def test_a_password_is_used_and_never_shown(serve, clip, caplog):
    caplog.set_level(logging.DEBUG)
    server = serve([clip, clip], user="robot", password="hunter2")
    path = source_path(f"rtsp://robot:hunter2@127.0.0.1:{server.port}//live/")
    camera, damage = CameraFrames(path, QUICK), DamageLog()
    entry = next(camera.entries(damage))
    frame = entry.load()
    assert frame.source == f"rtsp://127.0.0.1:{server.port}//live/"
    assert any(f":{server.port}//live/ RTSP" in request for request in server.requests)
    wrong = CameraFrames(source_path(f"rtsp://robot:hunter3@127.0.0.1:{server.port}/live"), QUICK)
    expected = r"^rtsp://127\.0\.0\.1:\d+/live: asks for a user and password"
    with pytest.raises(FrameError, match=expected):
        list(wrong.entries(damage))
    server.close()
    impatient = CameraSettings(patience_s=0, wait_s=0.01)
    gone = CameraFrames(path, impatient)
    with pytest.raises(FrameError, match=r"//live/: no picture in 0 s: ") as caught:
        list(gone.entries(damage))
    shown = f"{caplog.text} {caught.value} {damage.sentence()} {threading.enumerate()}"
    assert "hunter" not in shown


@pytest.mark.parametrize("text", ["/dev/video97", "97"])
def test_a_webcam_that_is_not_there_is_named_in_full(text):
    with pytest.raises(FrameError, match=r"^/dev/video97: no such camera"):
        list(CameraFrames(Path(text), QUICK).entries(DamageLog()))


def test_a_webcam_is_read_until_it_is_unplugged_and_again_when_it_is_back(tmp_path):
    """The capture is a fake: a file in place of the driver. Not tested on hardware."""
    path = write_clip(tmp_path / "a.avi", [n * 33 for n in range(15)], "mjpeg", strict="-2")
    asked = []

    def connect(address, silence_s):
        asked.append((address, silence_s))
        return av.open(str(path))

    damage = DamageLog()
    camera = CameraFrames(Path("/dev/video0"), QUICK, connect)
    assert numbers(camera, damage, 30) == [*range(15), *range(15)]
    assert asked[:2] == [("/dev/video0", 5.0)] * 2
    assert damage.all()[0].kind == "connection lost"


def test_a_reader_that_is_too_slow_gets_the_newest_pictures_and_is_told(serve, clip):
    server = serve([clip])
    settings = CameraSettings(queue_frames=2)
    camera = CameraFrames(source_path(f"rtsp://127.0.0.1:{server.port}/live"), settings)
    damage = DamageLog()
    entries = camera.entries(damage)
    seen = [number_in(next(entries).load().decode())]
    while seen[-1] < 19:
        seen.append(number_in(next(entries).load().decode()))
    entries.close()
    dropped = sum(loss.count for loss in damage.all() if loss.kind == "queue full")
    assert len(seen) + dropped == 20
    assert seen == sorted(seen)


def test_a_signal_ends_the_frames_and_not_the_program(serve, clip):
    server = serve([clip])
    camera = CameraFrames(source_path(f"rtsp://127.0.0.1:{server.port}/live"), QUICK)
    found = []
    for entry in camera.entries(DamageLog()):
        found.append(number_in(entry.load().decode()))
        if len(found) == 20:
            os.kill(os.getpid(), signal.SIGINT)
    assert found == list(range(20))
