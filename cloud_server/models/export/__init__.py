"""Start exports in a process of their own, so that the server itself loads no ML framework.

    python -m cloud_server.models.export '{"job": "init", ...}'

Progress goes to stderr, one line of JSON to stdout: the result, or the class and text of an error.

    __main__.py          the child process
    model_directory.py   job "init": the trainer, its files, the initial weights
    bundle_directory.py  job "bundle": the engines and the manifest of one version
    model_file.py        job "file": one version as a file for other programs

What computes is a backend's, see cloud_server/models/backend.py.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cloud_server.models.adapters import AdapterPlan
from cloud_server.models.backend import Progress
from fleet_model import errors
from fleet_model.bundle import WorkloadSpec
from fleet_model.errors import ExportError, StoppedError

PROGRESS = "export: "  # tells our lines from those of a framework

STOP_S = 0.2

__all__ = [
    "PROGRESS",
    "BundleJob",
    "ExportResult",
    "Failure",
    "FileJob",
    "InitJob",
    "Progress",
    "run_export",
]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BundleJob(_Message):
    """Write a bundle directory: the engines of one version, and manifest.json last."""

    job: Literal["bundle"] = "bundle"
    model: Path  # directory that an InitJob has written
    weights: Path  # safetensors with the trained tensors
    version: int = Field(ge=0)
    created_at: str  # UTC, ISO 8601
    directory: Path
    calibration: Path | None = None


class InitJob(_Message):
    """Write what does not change between rounds into a model directory.

    The files of the backend, weights.safetensors (where training starts), and trainer.json last.
    """

    job: Literal["init"] = "init"
    workload: WorkloadSpec
    trainable: str  # a scope that the workload's model knows, e.g. "head"
    batch_size: int = Field(default=32, ge=1)  # static in exported graphs
    directory: Path
    checkpoint: Path | None = None  # see own_weights.py; None = the workload's initial weights
    frozen: Path | None = None  # with a checkpoint: model directory whose frozen part stays
    former: dict[str, str] = {}  # see Task.former
    calibration: Path | None = None  # folder of samples for int8; None = the workload's own
    adapter: AdapterPlan | None = None  # None: the trained tensors travel as they are
    bundle: BundleJob | None = None  # of these weights, by the same process: it loads for long


class FileJob(_Message):
    """Write one version as a single file for other programs."""

    job: Literal["file"] = "file"
    model: Path  # directory that an InitJob has written
    weights: Path  # safetensors with the trained tensors
    kind: str  # a kind of file that the backend knows
    file: Path  # a new one, in a folder of its own


class ExportResult(_Message):
    """What the parity gate and the int8 engine measured."""

    metrics: dict[str, float]


class Failure(_Message):
    """How a job ended that raised one of our errors."""

    error: str  # class name in fleet_model.errors
    message: str


def run_export(
    job: InitJob | BundleJob | FileJob,
    progress: Progress = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
) -> ExportResult:
    """Run a job in a child process and wait for it.

    The child has a session of its own: Ctrl-C in a terminal reaches only the parent, which then
    decides. The child ends when its parent does, however that happens (see parent.py).

    Args:
        job: what to export; the directory is complete once this returns.
        progress: is given one line for each file.
        stop: asked five times a second; the child is killed when it returns true.

    Raises:
        FleetError: the class that the child raised, e.g. CheckpointError for a wrong file, or
            ExportError if the child died, or StoppedError if `stop` returned true.
    """
    command = [sys.executable, "-m", "cloud_server.models.export", job.model_dump_json()]
    made = job.file.parent if isinstance(job, FileJob) else job.directory
    made.mkdir(parents=True, exist_ok=True)
    with (
        # What a framework writes aside. Whoever removes what a killed export had begun removes it.
        tempfile.TemporaryDirectory(prefix=".scratch-", dir=made) as scratch,
        tempfile.TemporaryFile("w+") as stdout,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": scratch},
        ) as child,
    ):
        assert child.stderr is not None
        lines = _Lines(child.stderr, progress)
        try:
            while not _has_ended(child):
                if lines.error is not None:
                    raise lines.error
                if stop():
                    raise StoppedError("the export was stopped; nothing is published")
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)  # it is not waited for yet: no other has its id
            raise
        finally:
            lines.join()
        return _answer(stdout, child.returncode, list(lines.last))


class _Lines(threading.Thread):
    """Reads what a child says on stderr until its end."""

    def __init__(self, stream: IO[str], progress: Progress) -> None:
        super().__init__(name="export", daemon=True)
        self._stream, self._progress = stream, progress
        self.last: deque[str] = deque(maxlen=5)  # that are no progress
        self.error: Exception | None = None  # of `progress`
        self.start()

    def run(self) -> None:
        try:
            for line in self._stream:
                if line.startswith(PROGRESS):
                    self._progress(line.removeprefix(PROGRESS).rstrip())
                elif line.strip():
                    self.last.append(line.rstrip())
        except Exception as error:  # noqa: BLE001  (raised by run_export)
            self.error = error


def _has_ended(child: "subprocess.Popen[str]") -> bool:
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _answer(stdout: IO[str], code: int, last_lines: Sequence[str]) -> ExportResult:
    stdout.seek(0)
    lines = stdout.read().splitlines()
    try:
        answer: ExportResult | Failure = TypeAdapter(ExportResult | Failure).validate_json(
            lines[-1]
        )
    except (IndexError, ValidationError):
        how = f"signal {-code} (9 = out of memory?)" if code < 0 else f"exit code {code}"
        raise ExportError(
            f"the export process ended with {how}; its last lines: {' | '.join(last_lines)}"
        ) from None
    if isinstance(answer, Failure):
        # The class may be a plug-in's own, which only the child has loaded.
        raise getattr(errors, answer.error, ExportError)(answer.message)
    return answer
