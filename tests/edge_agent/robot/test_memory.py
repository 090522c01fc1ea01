"""Memory of the process tree, measured on real processes."""

import subprocess
import sys
import threading
import time

import pytest

from edge_agent.robot import memory
from edge_agent.robot.memory import MemoryWatch, tree_pss_mb

pytestmark = pytest.mark.base

HOLD = (
    "import sys; held = bytearray(b'x' * 60_000_000); print('held', flush=True); sys.stdin.read()"
)
IN_A_GRANDCHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"


@pytest.fixture
def hungry():
    """Return a starter of a process that holds 60 MB, itself or in a child of its own."""
    processes = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        processes.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in processes:
        process.communicate(timeout=240)  # the end of its stdin ends it


def wait_for(holds):
    limit = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("code", [HOLD, IN_A_GRANDCHILD], ids=["child", "grandchild"])
def test_children_count(hungry, code):
    before = tree_pss_mb()
    assert before > 5
    process = hungry(code)
    assert 55 < tree_pss_mb() - before < 110
    process.communicate(timeout=240)
    assert tree_pss_mb() - before < 30


def test_a_look_while_a_child_works_is_no_idle_memory(hungry):
    watch = MemoryWatch()
    watch.look(idle=True)
    idle = watch.idle_mb
    assert 0 < idle <= watch.peak_mb
    process = hungry(HOLD)
    watch.look(idle=False)
    assert watch.peak_mb > idle + 50
    process.communicate(timeout=240)
    watch.look(idle=True)
    assert watch.idle_mb < watch.peak_mb - 30


def test_the_peak_of_a_short_training_is_seen(hungry, monkeypatch):
    monkeypatch.setattr(memory, "BUSY_S", 0.02)
    watch = MemoryWatch()
    watch.start()
    wait_for(lambda: watch.peak_mb)
    before = watch.peak_mb
    watch.busy(True)
    process = hungry(HOLD)
    wait_for(lambda: watch.peak_mb > before + 50)
    idle = watch.idle_mb
    process.communicate(timeout=240)
    watch.busy(False)
    watch.close()
    assert idle < before + 30


def test_it_samples_from_start_to_close_and_in_no_other_time(monkeypatch):
    looks = []
    monkeypatch.setattr(memory, "IDLE_S", 0.001)
    monkeypatch.setattr(memory, "tree_pss_mb", lambda: looks.append(0) or 1.0)
    before = threading.active_count()
    watch = MemoryWatch()
    assert threading.active_count() == before
    watch.start()
    wait_for(lambda: len(looks) > 2)
    watch.close()
    assert threading.active_count() == before
    assert watch.peak_mb == 1.0
    MemoryWatch().close()  # that was never started
