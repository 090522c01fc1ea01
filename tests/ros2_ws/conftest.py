"""The nodes' package is imported as colcon has installed it, or else from its sources."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from ros_domain import domain, middleware

__all__ = ["domain", "middleware"]  # fixtures

ROOT = Path(__file__).parents[2]
if find_spec("edge_perception") is None:
    sys.path.append(str(ROOT / "ros2_ws/src/edge_perception"))


@pytest.fixture(scope="session")
def workspace():
    """Return the folder with `build` and `install` of colcon; `make test-ros` makes it."""
    installed = ROOT / "build/ros2_ws"
    if str(installed) not in os.environ.get("AMENT_PREFIX_PATH", ""):
        pytest.skip("needs the built workspace: `make test-ros ARGS=...`")
    return installed
