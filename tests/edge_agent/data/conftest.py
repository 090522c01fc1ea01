"""Real ROS 2: every publisher is a process of its own, every test has its own ROS domain."""

import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from loaded_frames import frames_of
from ros_domain import domain, tidy_shared_memory

__all__ = ["domain", "tidy_shared_memory"]  # fixtures

TOPIC = "/camera/image"
START_NS = 1_760_000_000_000_000_000
PUBLISHER = Path(__file__).parent / "frames" / "publish_camera.py"


class Camera:
    """Starts publishers."""

    def __init__(self, bags, folder):
        self._bags = bags
        self._position = folder

    @contextmanager
    def publishing(
        self,
        messages,
        reliability="reliable",
        durability="volatile",
        period_s=0.0,
        topic=TOPIC,
    ):
        name, files = "CompressedImage", []
        for message in messages:
            files.append(self._position / f"{time.monotonic_ns()}.cdr")
            files[-1].write_bytes(self._bags.store.serialize_cdr(message, message.__msgtype__))
            name = message.__msgtype__.rpartition("/")[2]
        command = [sys.executable, PUBLISHER, topic, name, reliability, durability]
        process = subprocess.Popen(
            [*command, str(period_s), *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.stdin.close()  # it says goodbye, unless it still waits for a subscriber
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
            process.stdout.close()

    def from_bag(self, messages):
        """Return the frames of the same messages from a bag."""
        from edge_agent.data.frames.bag import BagFrames
        from fleet_model.files.damage import DamageLog

        path = self._position / f"bag_{time.monotonic_ns()}"
        recorded = [(TOPIC, START_NS + i, message) for i, message in enumerate(messages)]
        return list(frames_of(BagFrames(self._bags.write(path, recorded)), DamageLog()))


@pytest.fixture
def camera(bags, tmp_path, domain):
    return Camera(bags, tmp_path)
