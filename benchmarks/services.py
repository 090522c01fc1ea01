"""Processes of a benchmark: each with a log, watched, killed, ended with all they have started."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.measure import wait_until

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 300.0
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "NO_COLOR": "1",
}
# Threads are left to each arm: what the Makefile sets for tests would bind stock TensorFlow.
DROPPED = ("OMP_NUM_THREADS", "PYTHONPATH", "VIRTUAL_ENV")


class Services:
    """Processes that end, with everything they have started, when the block does."""

    def __init__(self, logs: Path) -> None:
        """Keep logs in a folder that is made if necessary."""
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, command: Sequence[object], environment: Mapping[str, str] | None = None
    ) -> int:
        """Start a process; return its id."""
        with (self._logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                env={**base_environment(), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._logs,
            )
        self._running[name] = process
        return process.pid

    def require_alive(self) -> None:
        """Raise RuntimeError with the end of the log of a process that has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                tail = (self._logs / f"{name}.log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{name} ended with exit code {process.returncode}:\n{tail}")

    def pid(self, name: str) -> int:
        """Return the id of a running process."""
        return self._running[name].pid

    def kill(self, name: str) -> None:
        """End one process as a power cut would; those that it has started go on."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def wait(
        self,
        what: str,
        done: Callable[[], bool],
        step_s: float = 0.05,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Wait until `done()`; fail early if a process has ended."""

        def look() -> bool:
            self.require_alive()
            return done()

        wait_until(what, look, patience_s=patience_s, step_s=step_s)

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *_: object) -> None:
        """End the last first; what a process leaves behind is killed."""
        for process in reversed(self._running.values()):
            family = [p for p in _tree(process.pid) if p.pid != process.pid]
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for child in family:
                if child.is_running():
                    child.kill()
        self._running.clear()


def base_environment() -> dict[str, str]:
    """Return this process's variables without those that would treat the arms differently."""
    return {**{k: v for k, v in os.environ.items() if k not in DROPPED}, **QUIET}


def run_python(*arguments: object) -> None:
    """Run this interpreter in the project's folder, to its end; what it prints goes to stderr."""
    subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=base_environment(), check=True,
        stdout=sys.stderr,
    )  # fmt: skip


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
