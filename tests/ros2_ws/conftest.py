"""The nodes' package is imported as colcon has installed it, or else from its sources."""

import itertools
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_versions import write_versions

ROOT = Path(__file__).parents[2]
BRINGUP = ROOT / "ros2_ws/src/edge_bringup"
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
# Parallel runs seldom share one, the workers of a run never. Others begin at 2: see edge_agent.
DOMAINS = itertools.count(110 + os.getpid() % 20 * 4 + WORKER % 4, step=4)
if find_spec("edge_perception") is None:
    sys.path.append(str(ROOT / "ros2_ws/src/edge_perception"))
sys.path.append(str(Path(__file__).parent))  # after that: a folder of tests has the package's name


@pytest.fixture(scope="session")
def workspace():
    """Return the folder with `build` and `install` of colcon; `make test-ros` makes it."""
    installed = ROOT / "build/ros2_ws"
    if str(installed) not in os.environ.get("AMENT_PREFIX_PATH", ""):
        pytest.skip("needs the built workspace: `make test-ros ARGS=...`")
    return installed


@pytest.fixture
def domain(monkeypatch, tmp_path):
    """Give the test a ROS domain of its own on this machine, and the profile that robots have."""
    number = next(DOMAINS) % 230
    values = {
        "ROS_DOMAIN_ID": str(number),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(BRINGUP / "config/fast_dds.xml"),
        "ROS_LOG_DIR": str(tmp_path / "log"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return number


@pytest.fixture
def processes(workspace, domain):
    """Return what starts nodes and other programs."""
    from ros_robot import Processes

    started = Processes(workspace)
    yield started
    started.close()


@pytest.fixture
def listener(domain):
    """Return a node of this process."""
    from ros_robot import Listener

    one = Listener()
    yield one
    one.close()


@pytest.fixture
def tiny_bundle():
    return ROOT / "tests/data/tiny_bundle"


@pytest.fixture
def robot(tmp_path):
    """Return the folder of a robot's models, versions 1 and 2, still without `current`."""
    return write_versions(tmp_path, 1, 2)
