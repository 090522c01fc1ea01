"""A ROS domain for each test, and the Fast DDS profile that robots have, for every test of ROS.

A process reads its profile once, so all tests must agree on one: their order then does not matter.
Discovery stays on this machine.
"""

import fcntl
import itertools
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

PROFILE = Path(__file__).parents[1] / "ros2_ws/src/edge_bringup/config/fast_dds.xml"
SHARED_MEMORY = Path("/dev/shm")
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_YOUNG_S = 60  # maybe not locked yet
_DOMAINS = 228  # 1 to 228: behind them Fast DDS has no ports
# Parallel runs seldom share one, the workers of a run never.
_NUMBERS = itertools.count(os.getpid() % (_DOMAINS // 4) * 4 + WORKER % 4, step=4)


@pytest.fixture(scope="session")
def tidy_shared_memory():
    """Remove at the end the pictures' memory of killed processes: nobody holds the lock beside it.

    Ports stay: Fast DDS takes them again, and fails where they go while it does.
    """
    yield
    for lock in SHARED_MEMORY.glob(f"fastdds_{'[0-9a-f]' * 16}_el"):
        with suppress(OSError), lock.open("rb") as stream:
            if time.time() - lock.stat().st_mtime < _YOUNG_S:
                continue
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            name = lock.name[: -len("_el")]
            for left in (name, f"sem.{name}_mutex", lock.name):
                (SHARED_MEMORY / left).unlink(missing_ok=True)


@pytest.fixture
def domain(tidy_shared_memory, monkeypatch, tmp_path):
    """Return the ROS domain of this test alone; processes that it starts are in it, too."""
    number = 1 + next(_NUMBERS) % _DOMAINS
    values = {
        "ROS_DOMAIN_ID": str(number),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE),
        "ROS_LOG_DIR": str(tmp_path / "log"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return number
