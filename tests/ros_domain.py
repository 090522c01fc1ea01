"""Fixtures of real ROS 2 processes: nothing leaves this machine, and every test is alone.

The middleware uses shared memory only, and every test has its own ROS domain. A conftest.py imports
what its tests use.
"""

import fcntl
import itertools
import os
from contextlib import suppress
from pathlib import Path

import pytest

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
