"""Try a model in a child process that may crash, hang or grow without harm to the agent.

    agent: run_trial(job) --stdin: job--> child: try_model(job) --stdout: turns, findings--> agent

The child ends with the agent, however that ends. Logs go to stderr.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

import psutil

from edge_agent.models.verdict import Findings
from edge_agent.robot.child_process import (
    import_paths,
    signal_at_parents_end,
    step_aside,
    take_pipes,
)
from edge_agent.robot.logs import log_to_stderr
from edge_agent.robot.settings import InstallSettings
from fleet_model.errors import FleetError, StoppedError

LOOK_S = 0.05  # between two looks at the child
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob:
    """What is tried."""

    candidate: str  # bundle directory
    running: str  # bundle directory, "" if there is none
    precision: str
    source: Mapping[str, Any] | None  # of SourceSpec; None: no examples
    examples: int  # at most


def run_trial(job: TrialJob, limits: InstallSettings, ended: threading.Event) -> Findings:
    """Return what the trial of a model has shown, whatever it does to the process.

    Args:
        job: what to try.
        limits: time and memory.
        ended: set by another thread to give up.

    Raises:
        StoppedError: `ended` was set.
    """
    turn, found = _run(job, limits, ended)
    if turn == "examples" and found.failed:  # reading them takes too long or breaks: not its fault
        log.warning("the new model is tried without this robot's examples: see above, or too slow")
        turn, found = _run(replace(job, source=None), limits, ended)
    if turn == "running" and found.failed:
        log.warning("the running model cannot be compared with: %s", found.failed)
        _, found = _run(replace(job, running=""), limits, ended)
    return found


def _run(job: TrialJob, limits: InstallSettings, ended: threading.Event) -> tuple[str, Findings]:
    """Return whose turn it was at the end, and what was found."""
    child = subprocess.Popen(
        [sys.executable, "-m", __name__, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **import_paths()},
        start_new_session=True,
    )
    answers: list[bytes] = []
    reader = threading.Thread(target=_exchange, args=(child, job, answers), daemon=True)
    reader.start()
    why = _watch(child, limits, ended)
    reader.join()
    if why == "stopped":
        raise StoppedError("the trial of the new model was given up")
    turn, found = "", Findings(failed="")
    told = False
    for line in answers:
        answer = json.loads(line) if line.endswith(b"\n") else {}
        turn = answer.get("turn", turn)
        if "found" in answer:
            found, told = Findings(**answer["found"]), True
    if not told:
        found = Findings(
            failed=why or ("memory" if child.returncode == -signal.SIGKILL else "crashed")
        )
        log.warning("the process that tried the new model: %s", found.failed)
    return turn, found


def _exchange(child: "subprocess.Popen[bytes]", job: TrialJob, answers: list[bytes]) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(asdict(job)).encode())
        child.stdin.close()
    except BrokenPipeError:
        pass
    answers.extend(child.stdout)
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


def main() -> NoReturn:
    """Answer one job; `python -m edge_agent.models.trial_process PARENT`."""
    signal_at_parents_end(signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)  # it has ended already
    inbound, outbound = take_pipes()
    step_aside()
    log_to_stderr()

    def say(**answer: object) -> None:
        try:
            outbound.write(json.dumps(answer).encode() + b"\n")
            outbound.flush()
        except BrokenPipeError:
            os._exit(1)  # the agent was killed: nobody waits for an answer

    from edge_agent.models.trial import try_model

    job = TrialJob(**json.loads(inbound.read()))
    try:
        found = try_model(job, lambda turn: say(turn=turn))
    except MemoryError:
        found = Findings(failed="memory")
    except FleetError as error:
        log.warning("the new model cannot be used: %s", error)
        found = Findings(failed="unloadable")
    except Exception:
        log.exception("the new model cannot be used")
        found = Findings(failed="crashed")
    say(found=asdict(found))
    os._exit(0)


if __name__ == "__main__":
    main()
