"""The nodes' package is imported as colcon has installed it, or else from its sources."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from ros_domain import domain, tidy_shared_memory
from tiny_versions import write_versions

__all__ = ["domain", "tidy_shared_memory"]  # fixtures

ROOT = Path(__file__).parents[2]
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
