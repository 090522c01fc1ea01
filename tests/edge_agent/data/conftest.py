"""Real ROS 2: every publisher is a process of its own.

The middleware uses shared memory only, so nothing leaves this machine, and every test has its own
ROS domain.
"""

import fcntl
import itertools
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from loaded_frames import frames_of

TOPIC = "/camera/image"
START_NS = 1_760_000_000_000_000_000
PUBLISHER = Path(__file__).parent / "frames" / "publish_camera.py"
SHARED_MEMORY = Path("/dev/shm")
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
# Parallel runs seldom share one, the two workers of a run never.
DOMAINS = itertools.count(2 + os.getpid() % 25 * 4 + WORKER % 4, step=4)
SHARED_MEMORY_ONLY = """<?xml version="1.0" encoding="UTF-8" ?>
<dds xmlns="http://www.eprosima.com"><profiles>
  <transport_descriptors><transport_descriptor>
    <transport_id>shared</transport_id><type>SHM</type>
    <segment_size>16777216</segment_size><maxMessageSize>4194304</maxMessageSize>
  </transport_descriptor></transport_descriptors>
  <participant profile_name="local" is_default_profile="true"><rtps>
    <userTransports><transport_id>shared</transport_id></userTransports>
    <useBuiltinTransports>false</useBuiltinTransports>
  </rtps></participant>
</profiles></dds>
"""


@pytest.fixture(scope="session")
def middleware(tmp_path_factory):
    """Return what the environment of every ROS process must hold."""
    folder = tmp_path_factory.mktemp("ros")
    (folder / "shared_memory.xml").write_text(SHARED_MEMORY_ONLY)
    yield {
        "FASTDDS_DEFAULT_PROFILES_FILE": str(folder / "shared_memory.xml"),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",
        "ROS_LOG_DIR": str(folder / "log"),
    }
    _remove_what_the_killed_left()


def _remove_what_the_killed_left():
    """Remove the shared memory of which nobody holds the lock file beside it."""
    for lock in SHARED_MEMORY.glob("fastdds_*_[es]l"):
        with suppress(OSError), lock.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            name = lock.name[: -len("_el")]
            for left in (name, f"sem.{name}_mutex", lock.name):
                (SHARED_MEMORY / left).unlink(missing_ok=True)


@pytest.fixture
def domain(middleware, monkeypatch):
    """Return the ROS domain of this test alone."""
    number = next(DOMAINS) % 200
    for name, value in {**middleware, "ROS_DOMAIN_ID": str(number)}.items():
        monkeypatch.setenv(name, value)
    return number


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
        from edge_agent.data.frames.damage import DamageLog

        path = self._position / f"bag_{time.monotonic_ns()}"
        recorded = [(TOPIC, START_NS + i, message) for i, message in enumerate(messages)]
        return list(frames_of(BagFrames(self._bags.write(path, recorded)), DamageLog()))


@pytest.fixture
def camera(bags, tmp_path, domain):
    return Camera(bags, tmp_path)
