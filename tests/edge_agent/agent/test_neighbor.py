"""A training makes room, with real processes: stopped, continued, given up."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_agent.agent.neighbor import PATIENCE_S, yielding
from edge_agent.training.training_process import TrainingProcess
from fleet_model.errors import BusyError, TrainingError

pytestmark = pytest.mark.base


def state_of(pid):
    """Return the letter of a process: S sleeps, T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_until(holds):
    end = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def process():
    """A training process whose child does what takes for ever."""
    with TrainingProcess() as process:
        process._child = subprocess.Popen(["sleep", "600"])
        yield process
        process._child.kill()


def test_a_training_stands_still_while_there_is_a_reason_and_then_goes_on(process):
    reasons = [""]
    with yielding(lambda: reasons[0], process):
        reasons[0] = "perception needs the processor"
        wait_until(lambda: state_of(process.pid) == "T")
        reasons[0] = ""
        wait_until(lambda: state_of(process.pid) == "S")
        reasons[0] = "again"
        wait_until(lambda: state_of(process.pid) == "T")

    assert state_of(process.pid) != "T"  # for the next work


def test_a_training_that_stood_still_for_too_long_is_given_up_as_busy(process):
    reasons, later_s = [""], [0.0]

    def train():
        reasons[0] = "it is 06:00"
        wait_until(lambda: state_of(process.pid) == "T")
        later_s[0] = PATIENCE_S
        with process._busy:
            assert process._child.wait(240) == -signal.SIGKILL
            raise TrainingError("the training process was stopped: it was cancelled")

    with (
        pytest.raises(BusyError, match="it is 06:00"),
        yielding(lambda: reasons[0], process, lambda: later_s[0]),
    ):
        train()


def test_no_training_begins_while_there_is_a_reason(process):
    with pytest.raises(BusyError, match="not now"), yielding(lambda: "not now", process):
        raise AssertionError("it has begun")


def test_what_fails_otherwise_is_told_as_it_is(process):
    with pytest.raises(TrainingError, match="no examples"), yielding(lambda: "", process):
        raise TrainingError("no examples")


PARENT = """
import time
from edge_agent.training.training_process import TrainingProcess
process = TrainingProcess()
child = process._running()
print(child.pid, flush=True)
input()
process.stand_still()
print("stopped", flush=True)
time.sleep(600)
"""


def test_a_child_that_stands_still_ends_with_its_parent():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline())
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        wait_until(lambda: os.getpriority(os.PRIO_PROCESS, child) > usual)  # it has set itself up
        print(file=parent.stdin, flush=True)
        assert parent.stdout.readline() == "stopped\n"
        wait_until(lambda: state_of(child) == "T")
        parent.kill()
    try:
        wait_until(lambda: not Path(f"/proc/{child}").exists() or state_of(child) == "Z")
    finally:
        if Path(f"/proc/{child}").exists() and state_of(child) != "Z":
            os.kill(child, signal.SIGKILL)
