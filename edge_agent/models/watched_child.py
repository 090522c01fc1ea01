"""A child process for what may crash, hang or grow: asked once by JSON, watched until it ends.

    agent: ask(module, job) --stdin: job--> child: answer(work) --stdout: a line each--> agent

The child ends with the agent, however that ends. Logs go to stderr.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import psutil

from edge_agent.robot.child_process import (
    import_paths,
    signal_at_parents_end,
    step_aside,
    take_pipes,
)
from edge_agent.robot.logs import log_to_stderr
from edge_agent.robot.model_settings import InstallSettings
from fleet_model.errors import StoppedError

LOOK_S = 0.05  # between two looks at the child
Say = Callable[..., None]


class Ended(NamedTuple):
    """What a child has said, and how it ended."""

    said: Sequence[Mapping[str, Any]]
    failed: str  # "hung", "memory" or "crashed"; "" if it ended by itself


def ask(
    module: str, job: Mapping[str, Any], limits: InstallSettings, ended: threading.Event
) -> Ended:
    """Run `python -m module` on a job.

    Args:
        module: its main calls `answer`.
        job: JSON values.
        limits: time and memory.
        ended: set by another thread to give up.

    Raises:
        StoppedError: `ended` was set.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", module, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **import_paths()},
        start_new_session=True,
    )
    lines: list[bytes] = []
    reader = threading.Thread(target=_exchange, args=(child, job, lines), daemon=True)
    reader.start()
    why = _watch(child, limits, ended)
    reader.join()
    if why == "stopped":
        raise StoppedError("the trial of the new model was given up")
    if not why and child.returncode:
        why = "memory" if child.returncode == -signal.SIGKILL else "crashed"
    return Ended([json.loads(line) for line in lines if line.endswith(b"\n")], why)


def _exchange(child: "subprocess.Popen[bytes]", job: Mapping[str, Any], lines: list[bytes]) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(job).encode())
        child.stdin.close()
    except BrokenPipeError:
        pass
    lines.extend(child.stdout)
    child.stdout.close()


def _watch(
    child: "subprocess.Popen[bytes]", limits: InstallSettings, ended: threading.Event
) -> str:
    """Wait for the end of the child, and kill it where it must be; return why, or ""."""
    deadline = time.monotonic() + limits.timeout_s
    process, most = psutil.Process(child.pid), limits.memory_mb * 1e6
    while True:
        try:
            child.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            pass
        else:
            return ""
        if ended.is_set():
            why = "stopped"
        elif time.monotonic() > deadline:
            why = "hung"
        elif process.memory_info().rss > most:
            why = "memory"
        else:
            continue
        child.kill()
        child.wait()
        return why


def answer(work: Callable[[Mapping[str, Any], Say], None]) -> NoReturn:
    """Be the child of the process whose number is the first argument: do one job, and end.

    Args:
        work: gets the job, and what says a line to the parent.
    """
    signal_at_parents_end(signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)  # it has ended already
    inbound, outbound = take_pipes()
    step_aside()
    log_to_stderr()

    def say(**line: object) -> None:
        try:
            outbound.write(json.dumps(line).encode() + b"\n")
            outbound.flush()
        except BrokenPipeError:
            os._exit(1)  # the agent was killed: nobody waits for an answer

    work(json.loads(inbound.read()), say)
    os._exit(0)
