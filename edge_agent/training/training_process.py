"""Train in a child process, so that what training needs or breaks stays out of the agent.

A framework's memory returns to the robot when the child ends, a crash in native code or the out of
memory killer takes only the child. It stays warm between rounds (loaded graphs, cached features)
and ends by itself when idle or when its parent is gone.

    agent: TrainingProcess.fit(job) --stdin--> child: trainer.fit(...) --stdout--> Update

Logs go to stderr.
"""

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NoReturn

from edge_agent.robot.child_process import (
    import_paths,
    signal_at_parents_end,
    step_aside,
    take_pipes,
)
from edge_agent.robot.logs import log_to_stderr
from edge_agent.robot.reasons import is_ours, unexpected
from edge_agent.robot.settings import TrainSettings
from edge_agent.training.feature_cache import LIMIT
from edge_agent.training.trainer import TRAINERS, Trainer
from edge_agent.training.trainers.hardware import DEVICE, ROWS_AT_ONCE
from edge_agent.training.training_job import (
    Packet,
    TrainingJob,
    pack_error,
    pack_job,
    pack_update,
    read_packet,
    unpack_job,
    unpack_update,
    write_packet,
)
from edge_agent.training.work_kinds import work_of
from fleet_model.errors import FleetError, TrainingError
from fleet_model.loading import load_plugin
from fleet_model.memory import framework_loaded, give_back
from fleet_model.types import TRAIN, Update

log = logging.getLogger(__name__)


def environment_of(training: TrainSettings) -> Mapping[str, str]:
    """Return what the operator's settings change for the child."""
    return {
        "OMP_NUM_THREADS": str(training.threads),
        LIMIT: str(training.cache_mb),
        DEVICE: training.device,
        ROWS_AT_ONCE: str(training.rows_at_once),
    }


class TrainingProcess:
    """The parent's side: starts the child when it is needed, outlives it whatever happens to it.

    One fit at a time; `cancel` and `close` may come from another thread.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, *, idle_s: float = 600
    ) -> None:
        """Start nothing yet.

        Args:
            environment: variables added to this process's own for the child, e.g. OMP_NUM_THREADS.
            idle_s: the child ends when it had no work for so long; its cached features go with it.
        """
        self._environment = dict(environment or {})
        self._idle_s = idle_s
        self._child: subprocess.Popen[bytes] | None = None
        self._busy = threading.Lock()
        self._stop_reason = ""

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives."""
        child = self._child
        return child.pid if child and child.poll() is None else None

    def fit(self, job: TrainingJob, timeout_s: float | None = None) -> Update:
        """Return the update of one round; its metrics gain "peak_child_mb", "framework_loaded".

        Raises:
            TrainingError: it failed, took longer than `timeout_s`, was cancelled, or the child
                died. The next call starts a new child.
            FleetError: whatever else the trainer or the example store raised on purpose.
        """
        packet = pack_job(job)
        with self._busy:
            self._stop_reason = ""
            for _ in range(2):
                child = self._running()
                answer = self._exchange(child, packet, timeout_s)
                if answer:
                    return unpack_update(answer)
                if child.wait() != 0 or self._stop_reason:
                    raise self._death(child.returncode)
                # Exit code 0 without an answer: it ended as idle just before the job reached it.
        raise TrainingError("the training process ended twice without an answer; see its log")

    def cancel(self) -> None:
        """Kill a fit that is under way: it raises TrainingError. No effect otherwise."""
        if self._busy.locked():
            self._kill("it was cancelled")

    def stand_still(self) -> None:
        """Let the child do nothing, until `go_on`; its memory stays."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the child work again."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the child, and with it a fit that is under way; a later fit starts a new one."""
        self.cancel()
        with self._busy:
            self._dispose()

    def rest(self) -> None:
        """End a child that waits for work, for its memory; one that is at work goes on."""
        if self._busy.acquire(blocking=False):
            try:
                self._dispose()
            finally:
                self._busy.release()

    def __enter__(self) -> "TrainingProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _running(self) -> "subprocess.Popen[bytes]":
        """Return the warm child, or a new one."""
        if self._child is None or self._child.poll() is not None:
            self._dispose()
            self._child = subprocess.Popen(
                [sys.executable, "-m", "edge_agent.training.training_process", str(self._idle_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **self._environment, **import_paths()},
                start_new_session=True,  # Ctrl-C reaches the agent, which then ends the child
            )
            if self._stop_reason:
                self._child.kill()
        return self._child

    def _exchange(
        self, child: "subprocess.Popen[bytes]", packet: Packet, timeout_s: float | None
    ) -> Packet | None:
        """Return the child's answer; None if it ended without one."""
        assert child.stdin is not None
        assert child.stdout is not None
        timer = threading.Timer(timeout_s or 0, self._kill, [f"it took longer than {timeout_s} s"])
        timer.daemon = True
        if timeout_s is not None:
            timer.start()
        try:
            write_packet(child.stdin, packet)
            return read_packet(child.stdout)
        except BrokenPipeError:
            return None
        except BaseException:
            child.kill()  # Ctrl-C: an answer that nobody waited for would meet the next job
            raise
        finally:
            timer.cancel()

    def _signal(self, number: signal.Signals) -> None:
        if child := self._child:
            child.send_signal(number)  # not to one that has ended

    def _kill(self, reason: str) -> None:
        self._stop_reason = reason
        if child := self._child:
            child.kill()

    def _death(self, code: int) -> TrainingError:
        if self._stop_reason:
            return TrainingError(f"the training process was stopped: {self._stop_reason}")
        if code < 0:
            hint = "; out of memory?" if -code == signal.SIGKILL else ""
            how = f"was killed by {signal.Signals(-code).name}{hint}"
        else:
            how = f"ended with exit code {code}"
        return TrainingError(
            f"the training process {how}; nothing is sent, the next round starts a new one. Its "
            "messages are in the agent's log"
        )

    def _dispose(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        for stream in (child.stdin, child.stdout):
            with suppress(BrokenPipeError):
                if stream:
                    stream.close()  # the child ends when its stdin does
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def main() -> NoReturn:
    """Answer jobs from stdin on stdout; `python -m edge_agent.training.training_process IDLE_S`."""
    # One that stands still when its parent dies would never notice it.
    signal_at_parents_end(signal.SIGCONT)
    idle_s = float(sys.argv[1])
    log_as_the_agent()
    inbound, outbound = take_pipes()
    step_aside()
    packets: queue.SimpleQueue[Packet] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(inbound, packets), daemon=True).start()
    warm = _WarmTrainer()
    packet = packets.get()  # no limit: a child is started because a job is on its way
    while True:
        write_packet(outbound, _answer(warm, packet))
        # Free blocks between used ones: 70 MB after ten rounds of a detector, with 200 in use.
        give_back()
        try:
            packet = packets.get(timeout=idle_s)
        except queue.Empty:
            os._exit(0)  # immediately: the thread above cannot be joined


def log_as_the_agent() -> None:
    """Log to stderr in the agent's form; a warning that was told in a round before is not again."""
    told = set[str]()

    def is_news(record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        known = record.getMessage() in told
        told.add(record.getMessage())
        return not known

    log_to_stderr().addFilter(is_news)


class _WarmTrainer:
    """The trainer of the last job: graphs and cached features serve the next job of its kind."""

    def __init__(self) -> None:
        self._kind: object = None
        self._trainer: Trainer | None = None

    def of(self, job: TrainingJob) -> Trainer:
        kind = (job.trainer, job.spec, job.directory)
        if self._trainer is None or kind != self._kind:
            self.forget()  # first, so that two never share the memory
            self._trainer = load_plugin(TRAINERS, job.trainer)(job.spec, job.directory)
            self._kind = kind
        return self._trainer

    def forget(self) -> None:
        self._trainer = None


def _answer(warm: _WarmTrainer, packet: Packet) -> Packet:
    try:
        job = unpack_job(packet)
        update = work_of(job.kind)(warm.of(job), job)
        if job.kind == TRAIN:  # other replies hold what was asked for, and nothing of this process
            update = replace(update, metrics={**update.metrics, **_process_metrics()})
        return pack_update(update)
    except FleetError as error:
        if not is_ours(error):
            log.warning("the code that trains is no part of fleetlearn: %s", error)
        return pack_error(error)
    except Exception as error:  # whatever it is, the agent must get an answer
        log.exception("training failed")
        warm.forget()
        return pack_error(TrainingError(unexpected(error)))


def _process_metrics() -> Mapping[str, float]:
    """VmHWM, because ru_maxrss is inherited from the parent through exec."""
    status = Path("/proc/self/status").read_text()
    peak_kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "peak_child_mb": int(peak_kb) / 1024,
        "framework_loaded": float(framework_loaded()),
    }


def _receive(inbound: BinaryIO, packets: "queue.SimpleQueue[Packet]") -> None:
    """Keep reading while the trainer works, to notice immediately that the parent has gone."""
    while packet := read_packet(inbound):
        packets.put(packet)
    os._exit(0)


if __name__ == "__main__":
    main()
