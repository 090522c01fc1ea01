"""Nodes as processes: how they end, and what a user reads when something is wrong."""

import signal
import subprocess
import sys

import pytest

NODE = """
import logging
import sys
from edge_perception.diagnostics import Diagnostics, Health
from edge_perception.parameters import ParameterSpec, declare
from edge_perception.process import run
from fleet_model.errors import SettingsError
from rclpy.node import Node

class Tested(Node):
    def __init__(self):
        super().__init__("tested")
        declare(self, (ParameterSpec("rate_hz", 1.0, "of nothing", 0.0, 2.0),))
        self.diagnostics = Diagnostics(self, lambda: Health(0, "runs", {}))
    def start(self):
        print("ready", flush=True)
        if self.get_parameter("rate_hz").value == 2.0:
            raise SettingsError("rate_hz is 2.0, expected\\n another one")
        for level in (logging.WARNING, logging.INFO, logging.ERROR, logging.WARNING):
            logging.getLogger("fleet_model.tested").log(level, "level %d", level)
    def stop(self):
        print("stopped", flush=True)

sys.exit(run(Tested))
"""


@pytest.fixture
def started(tmp_path):
    (tmp_path / "tested_node").write_text(NODE)
    processes = []

    def start(*words):
        command = [sys.executable, tmp_path / "tested_node", *words]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_node_cleanly(started, number):
    process = started()
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (0, "stopped\n")
    assert "Traceback" not in err


def test_a_wrong_setting_is_one_line(started):
    process = started("--ros-args", "-p", "rate_hz:=2.0")
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (2, "ready\nstopped\n")
    assert err == "tested_node: rate_hz is 2.0, expected another one\n"


@pytest.mark.parametrize("given", ["'fast'", "3.0"])
def test_a_parameter_of_another_type_or_range_is_one_line(started, given):
    process = started("--ros-args", "-p", f"rate_hz:={given}")
    _, err = process.communicate(timeout=240)
    assert process.returncode == 2
    assert err == f"tested_node: parameter rate_hz is {given}, expected double, 0 to 2\n"


def test_a_file_whose_section_has_the_name_of_the_program_is_told(started, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text("tested_node:\n  ros__parameters:\n    rate_hz: 0.5\n")
    process = started("--ros-args", "--params-file", file)
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    _, err = process.communicate(timeout=240)
    assert f"{file}: no section is for this node, so nothing in it is used: it has /tested_n" in err
    assert "; name the section /tested or /**\n" in err


def test_lines_of_every_level_of_the_packages_that_it_uses_are_in_its_log(started):
    process, lines = started(), []
    while len(lines) < 4:
        line = process.stderr.readline()
        assert line, "it has ended"
        if "level" in line:
            lines.append(line.split("] ")[0][1:] + line[-4:-1])
    assert lines == ["WARN 30", "INFO 20", "ERROR 40", "WARN 30"]


def test_an_unknown_parameter_is_told_in_the_log(started):
    process = started("--ros-args", "-p", "rate:=1.0")
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    _, err = process.communicate(timeout=240)
    assert "parameter rate was given, but this node has none of that name" in err
    assert "did you mean rate_hz?" in err
