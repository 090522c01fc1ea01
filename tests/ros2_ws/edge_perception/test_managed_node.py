"""What a transition raises is told, unless a signal has ended ROS meanwhile."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("domain")]
pytest.importorskip("rclpy", reason="needs ROS 2: `make test-ros`")

NODE = """
import rclpy, sys
from edge_perception.managed_node import ManagedNode
from edge_perception.perception.parameters import PERCEPTION
from edge_perception.process import run

class Node(ManagedNode):
    def __init__(self):
        super().__init__("tested", PERCEPTION)

    def activate(self):
        {step}

    def start(self):
        super().start()
        rclpy.try_shutdown()

sys.exit(run(Node, sys.argv))
"""


def ends_with(step):
    """Return the exit code and the log of a node that does this to activate."""
    command = [sys.executable, "-c", NODE.format(step=step), "--ros-args", "-p", "autostart:=true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stderr


def test_a_defect_of_a_step_is_told_with_its_traceback():
    code, log = ends_with("raise ZeroDivisionError")
    assert (code, "ZeroDivisionError" in log, "Traceback" in log) == (0, True, True)


def test_a_signal_in_the_middle_of_a_step_is_no_defect():
    code, log = ends_with("rclpy.try_shutdown(); self.create_timer(1.0, print)")
    assert code == 0, log
    assert "Traceback" not in log
