"""Real rclpy on both sides; see conftest.py for the publishers."""

import json
import signal
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from loaded_frames import frames_of

from edge_agent.data.frames.live import LiveQueue
from edge_agent.data.frames.ros_topic import LiveSettings, RosTopicFrames
from edge_agent.data.labels import LabelSettings, labelled_frames
from edge_agent.robot.settings import load_settings
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("domain")]
pytest.importorskip("rclpy", reason="needs ROS 2: `make test-ros`")

TOPIC = "/camera/image"
T0 = 1_760_000_000_000_000_000
BUNDLE = Path(__file__).parents[3] / "data/tiny_bundle"


@pytest.fixture
def jpegs(bags, picture_bytes):
    return [bags.jpeg(T0 + i, picture_bytes(i)) for i in range(6)]


def live(**settings):
    return RosTopicFrames(TOPIC, settings=LiveSettings(**{"queue_frames": 50, **settings}))


def wait_for(holds):
    end = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def parts(frame):
    """Return everything but where it came from."""
    return (
        frame.topic,
        frame.stamp_ns,
        bytes(frame.data),
        frame.format,
        frame.width,
        frame.height,
        frame.decode().tobytes(),
        frame.pixels().tobytes(),
    )


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_compressed_frames_are_those_of_a_bag(camera, jpegs, reliability):
    damage = DamageLog()
    with camera.publishing(jpegs, reliability):
        frames = list(islice(frames_of(live(), damage), len(jpegs)))
    assert [parts(frame) for frame in frames] == [parts(f) for f in camera.from_bag(jpegs)]
    assert {frame.source for frame in frames} == {"ros"}
    assert not damage


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_raw_vga_frames_with_padded_rows_are_those_of_a_bag(camera, bags, reliability):
    rng = np.random.default_rng(7)
    rows = [rng.integers(0, 256, (480, 1928), np.uint8) for _ in range(5)]
    raw = [bags.raw(T0 + i, image, "bgr8", width=640) for i, image in enumerate(rows)]
    with camera.publishing(raw, reliability, period_s=0.03):
        frames = list(islice(frames_of(live(), DamageLog()), len(raw)))
    assert [parts(frame) for frame in frames] == [parts(f) for f in camera.from_bag(raw)]
    expected = rows[4][:, :1920].reshape(480, 640, 3)[..., ::-1]
    assert np.array_equal(frames[4].decode(), expected)


def test_a_zero_stamp_is_replaced_by_the_time_of_arrival(camera, bags, picture_bytes):
    before = time.time_ns()
    with camera.publishing([bags.jpeg(0, picture_bytes(1))]):
        (frame,) = islice(frames_of(live(), DamageLog()), 1)
    assert before < frame.stamp_ns < time.time_ns()


def test_a_damaged_message_is_counted_and_the_next_one_arrives(camera, bags, picture_bytes):
    contents = [picture_bytes(0), picture_bytes(1)[:100], b"", picture_bytes(3)]
    damage = DamageLog()
    with camera.publishing([bags.jpeg(T0 + i, c) for i, c in enumerate(contents)]):
        frames = list(islice(frames_of(live(), damage), 2))
    assert [frame.stamp_ns for frame in frames] == [T0, T0 + 3]
    assert {(d.kind, d.count) for d in damage.all()} == {("cut jpeg", 1), ("empty", 1)}


def test_a_publisher_that_appears_late_is_waited_for(camera, jpegs, caplog):
    frames = []
    reader = threading.Thread(
        target=lambda: frames.extend(islice(frames_of(live(), DamageLog()), len(jpegs)))
    )
    reader.start()
    wait_for(lambda: "nobody publishes it; camera topics in ROS domain" in caplog.text)
    with camera.publishing(jpegs):
        reader.join(20)
    assert [frame.stamp_ns - T0 for frame in frames] == list(range(len(jpegs)))


@pytest.mark.parametrize("first", ["reliable", "best_effort"])
def test_a_publisher_that_restarts_with_another_offer_is_heard_again(camera, jpegs, first):
    second = {"reliable": "best_effort", "best_effort": "reliable"}[first]
    source = frames_of(live(), DamageLog())
    with camera.publishing(jpegs[:3], first):
        stamps = [frame.stamp_ns - T0 for frame in islice(source, 3)]
    with camera.publishing(jpegs[3:], second, period_s=1):
        stamps += [frame.stamp_ns - T0 for frame in islice(source, 1)]
    source.close()
    assert stamps[:3] == [0, 1, 2]
    assert stamps[3] in {3, 4, 5}


def test_a_publisher_that_is_killed_and_restarted_is_heard_again(camera, jpegs):
    source = frames_of(live(), DamageLog())
    with camera.publishing(jpegs[:3]) as process:
        stamps = [frame.stamp_ns - T0 for frame in islice(source, 3)]
        process.kill()
    with camera.publishing(jpegs[3:]):
        stamps += [frame.stamp_ns - T0 for frame in islice(source, 3)]
    source.close()
    assert stamps == list(range(6))


def test_the_last_pictures_of_a_latched_topic_reach_those_who_come_late(camera, jpegs):
    with camera.publishing(jpegs[:2], durability="transient_local") as process:
        assert process.stdout.readline() == "sent\n"
        frames = list(islice(frames_of(live(), DamageLog()), 2))
    assert [frame.stamp_ns - T0 for frame in frames] == [0, 1]


def test_an_offer_that_does_not_fit_is_said_to_be_the_cause(camera, jpegs):
    frames = frames_of(live(reliability="reliable", patience_s=8), DamageLog())
    with camera.publishing(jpegs, "best_effort"), pytest.raises(FrameError) as caught:
        next(frames)
    assert caught.value.reason == "nothing arrives"
    assert str(caught.value) == (
        "ros:/camera/image: nothing arrived in 8 s: camera_driver does not offer the reliability "
        "that was asked for"
    )


def test_a_topic_that_nobody_publishes_names_those_that_are_published(camera, jpegs):
    frames = frames_of(live(patience_s=8), DamageLog())
    expected = (
        "nothing arrived in 8 s: nobody publishes it; camera topics in ROS domain .*: /front$"
    )
    with camera.publishing([], topic="/front"), pytest.raises(FrameError, match=expected):
        next(frames)


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_a_camera_that_sends_nothing_is_named(camera, reliability):
    frames = frames_of(live(patience_s=8), DamageLog())
    expected = "nothing arrived in 8 s: camera_driver sends nothing.*; is the camera running"
    with camera.publishing([], reliability), pytest.raises(FrameError, match=expected):
        next(frames)


def test_a_topic_of_another_type_is_refused_at_once(camera, bags):
    frames = frames_of(live(), DamageLog())  # without this check it waits for ever
    with (
        camera.publishing([bags.text("star")], durability="transient_local"),
        pytest.raises(FrameError, match="publishes std_msgs/String, expected sensor_msgs/Im"),
    ):
        next(frames)


def test_a_name_that_no_topic_can_have_is_refused():
    with pytest.raises(FrameError, match=r"ros:/no topic: ROS 2: .*must not contain") as caught:
        next(RosTopicFrames("no topic").entries(DamageLog()))
    assert "/src/" not in str(caught.value)


def test_a_slow_reader_gets_the_newest_frames_and_every_missed_one_is_counted(
    camera, bags, picture_bytes, monkeypatch
):
    messages = [bags.jpeg(T0 + i, picture_bytes(i)) for i in range(40)]
    arrived, put = [], LiveQueue.put
    monkeypatch.setattr(LiveQueue, "put", lambda *it: (put(*it), arrived.append(it)))
    source, damage = live(queue_frames=3), DamageLog()
    entries = source.entries(damage)
    with camera.publishing(messages, period_s=0.02) as process:
        frames = [next(entries).load()]
        assert process.stdout.readline() == "sent\n"
        wait_for(lambda: len(arrived) == len(messages))
        source.stop()
        frames += [entry.load() for entry in entries]
    assert [frame.stamp_ns - T0 for frame in frames[-3:]] == [37, 38, 39]
    (full,) = damage.all()
    assert (full.kind, full.count) == ("queue full", 40 - len(frames))
    assert full.begins.startswith("ros/camera/image before ")


def test_nothing_is_left_running_when_the_reader_goes_away(camera, jpegs):
    before = threading.active_count()
    entries = live().entries(DamageLog())
    with camera.publishing(jpegs):
        next(entries)
        assert threading.active_count() == before + 1
        entries.close()
    assert threading.active_count() == before


def test_it_can_be_stopped_from_another_thread_while_nothing_arrives():
    source = live()
    threading.Timer(1.0, source.stop).start()
    assert list(source.entries(DamageLog())) == []


READER = """
import sys
from pathlib import Path
from fleet_model.files.damage import DamageLog
from edge_agent.data.labels import LabelSettings, labelled_frames
if "rclpy" in sys.argv:
    import rclpy
    rclpy.init()
for labelled in labelled_frames(Path("ros:/camera/image"), LabelSettings(), DamageLog()):
    print(labelled.frame.stamp_ns, flush=True)
print("summary", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "rclpy"),
    [
        (signal.SIGTERM, ""),
        (signal.SIGINT, ""),
        (signal.SIGTERM, "rclpy"),
        (signal.SIGINT, "rclpy"),
    ],
)
def test_a_signal_ends_the_frames_and_not_the_program(camera, jpegs, number, rclpy):
    command = [sys.executable, "-c", READER, rclpy]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        with camera.publishing(jpegs, period_s=0.1):
            lines = [reader.stdout.readline() for _ in jpegs]
            reader.send_signal(number)
            rest, errors = reader.communicate(timeout=240)
    finally:
        reader.kill()
    assert lines == [f"{T0 + i}\n" for i in range(len(jpegs))], errors
    if rclpy and number == signal.SIGINT:  # rclpy passes it on: KeyboardInterrupt
        assert "KeyboardInterrupt" in errors
    else:
        assert (rest, errors, reader.returncode) == ("summary\n", "", 0)


def interrupted(camera, bags, *words):
    """Run a command over a topic of three pictures, then send Ctrl-C; return its last line."""
    import cv2

    grays = [np.full((200, 200, 3), 40 + 20 * i, np.uint8) for i in range(3)]
    files = [cv2.imencode(".jpg", gray)[1].tobytes() for gray in grays]
    messages = [bags.jpeg(T0 + i, file) for i, file in enumerate(files)]
    command = [sys.executable, "-c", "from edge_agent.cli import main; main()", *words]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        with camera.publishing(messages, period_s=0.5) as process:
            assert process.stdout.readline() == "sent\n"
            time.sleep(1)
            running.send_signal(signal.SIGINT)
            printed, errors = running.communicate(timeout=240)
    finally:
        running.kill()
    assert running.returncode == 0, errors
    return printed, files


def test_predict_runs_over_a_topic_until_it_is_interrupted(camera, bags):
    words = ["predict", f"ros:{TOPIC}", "--bundle", str(BUNDLE), "--json"]
    frames = json.loads(interrupted(camera, bags, *words)[0])["predictions"]
    assert [(f["topic"], f["stamp_ns"]) for f in frames] == [(TOPIC, T0 + i) for i in range(3)]


def test_extract_writes_a_topic_until_it_is_interrupted(camera, bags, tmp_path):
    words = ["extract", f"ros:{TOPIC}", "--out", str(tmp_path / "out"), "--json"]
    printed, files = interrupted(camera, bags, *words)
    assert json.loads(printed)["frames_written"] == 3
    found = sorted((tmp_path / "out").rglob("*.jpg"))
    assert [file.read_bytes() for file in found] == files
    assert [int(file.stem.rpartition("-")[2]) for file in found] == [T0, T0 + 1, T0 + 2]


def test_enroll_keeps_a_topic_that_is_published_and_says_that_nobody_labels_it(
    camera, jpegs, tmp_path
):
    kit, robot = tmp_path / "kit", tmp_path / "robot"
    kit.mkdir()
    (kit / "kit.toml").write_text('address = "localhost:1"\nchannel = "stable"\n')
    (kit / "ca.crt").write_text("a certificate")

    def type_(*words):
        command = [sys.executable, "-m", "edge_agent", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=240)

    words = ("enroll", kit, "--dir", robot, "--examples", f"ros:{TOPIC}", "--json")
    with camera.publishing(jpegs, period_s=0.05):
        enrolled = type_(*words)
        # What was written down is the topic: its frames arrive by that name.
        (path,) = load_settings(robot / "agent.toml", {}).examples.paths
        frames = islice(labelled_frames(path, LabelSettings(), DamageLog()), len(jpegs))
        assert [labelled.frame.stamp_ns - T0 for labelled in frames] == list(range(len(jpegs)))
        own = type_("predict", "--config", robot, "--bundle", BUNDLE)
    assert enrolled.returncode == 0, enrolled.stderr
    (finding,) = json.loads(enrolled.stdout)["findings"]
    assert (finding["state"], finding["text"]) == (
        "warn",
        f"ros:{TOPIC}: is live and has no labels",
    )
    assert finding["next_step"] == "record bags of it into examples.spool"
    assert own.returncode == 5, own.stdout
    assert f"ros:{TOPIC}: is live: its frames come once and nobody labels them" in own.stderr
