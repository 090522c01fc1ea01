"""The workspace is built by colcon, and `colcon test` really runs the packages' own tests."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy", reason="needs ROS 2: `make test-ros`")

SOURCES = Path(__file__).parents[2] / "ros2_ws/src"


def test_colcon_runs_the_tests_of_the_package(workspace, domain, tmp_path):
    command = [sys.executable, "-m", "colcon", "--log-base", tmp_path / "log", "test"]
    command += ["--build-base", workspace / "build", "--install-base", workspace / "install"]
    command += ["--test-result-base", tmp_path, "--base-paths", SOURCES / "edge_perception"]
    run = subprocess.run(
        [*command, "--return-code-on-test-failure"],
        cwd=workspace,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (suite,) = ElementTree.parse(tmp_path / "edge_perception/pytest.xml").getroot()
    counted = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    written = len(list((SOURCES / "edge_perception/test").glob("test_*.py")))
    assert counted["tests"] > written > 0
    assert counted == {**counted, "failures": 0, "errors": 0, "skipped": 0}


def test_programs_messages_and_files_lie_where_ros_looks(workspace):
    installed = workspace / "install"
    programs = {path.name for path in (installed / "edge_perception/lib/edge_perception").iterdir()}
    assert {"perception_node", "frame_recorder_node", "camera_node"} <= programs
    share = installed / "edge_bringup/share"
    assert (share / "ament_index/resource_index/packages/edge_bringup").exists()
    assert (share / "edge_bringup/config/fast_dds.xml").is_file()
    messages = installed / "edge_perception_msgs/share/edge_perception_msgs"
    assert (messages / "msg/ModelInfo.msg").is_file()
