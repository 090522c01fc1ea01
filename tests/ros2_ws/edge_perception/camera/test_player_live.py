"""Cameras on the loopback interface; PyAV decodes, so these do not run with the base alone."""

import threading
import time

from edge_perception.camera.player import Pace, Player
from edge_perception.camera.source import CameraSource
from free_ports import free_port
from rtsp_server import RtspServer
from video_clips import number_in, packets, write_clip

PATIENCE_S = 240


def wait_for(holds):
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def playing(text, sent, **pace):
    def send(number, frame):
        sent.append((number, frame.stamp_ns))

    def make(frame):
        return number_in(frame.decode())

    return Player(CameraSource(text), Pace(**pace), make, send)


def test_a_camera_that_comes_late_and_goes_away_is_played_whenever_it_is_there():
    clip = [data for _, data in packets("h264", 20)]
    port, sent = free_port(), []
    player = playing(f"rtsp://127.0.0.1:{port}/live", sent)
    player.start()
    begun_ns = time.time_ns()
    servers = [RtspServer([clip, clip], port=port)]
    wait_for(lambda: any(loss.kind == "connection lost" for loss in player.damage.all()))
    servers[0].close()
    before = len(sent)
    servers.append(RtspServer([clip], port=port))
    wait_for(lambda: len(sent) > before)
    player.stop()
    servers[1].close()
    stamps = [stamp for _, stamp in sent]
    assert begun_ns < stamps[0]
    assert stamps == sorted(stamps)
    assert {number for number, _ in sent} <= set(range(20))
    assert player.problem == ""


def test_a_camera_that_refuses_is_asked_again_until_it_does_not():
    port, sent = free_port(), []
    server = RtspServer([], user="robot", password="hunter2", port=port)
    player = playing(f"rtsp://127.0.0.1:{port}/live", sent, retry_s=0.1)
    player.start()
    wait_for(lambda: player.problem)
    assert "asks for a user and password" in player.problem
    server.close()
    server = RtspServer([[data for _, data in packets("h264", 20)]], port=port)
    wait_for(lambda: sent and not player.problem)
    player.stop()
    server.close()
    assert "camera player" not in {thread.name for thread in threading.enumerate()}


def test_a_video_gives_every_picture_by_its_own_time(tmp_path):
    times_ms = [0, 10, 20, 60, 70, 100]
    clip = write_clip(tmp_path / "clip.mp4", times_ms, bf="0")
    sent = []
    player = playing(str(clip), sent)
    begun_s = time.monotonic()
    player.start()
    wait_for(lambda: player.ended)
    assert time.monotonic() - begun_s >= 0.1
    assert sent == [(n, ms * 1_000_000) for n, ms in enumerate(times_ms)]
