"""Start exports in a process of their own, so that the server itself loads no ML framework.

    python -m cloud_server.models.export '{"job": "init", ...}'

Progress goes to stderr, one line of JSON to stdout: the result, or the class and text of an error.

    __main__.py          the child process
    model_directory.py   job "init": the trainer, its files, the initial weights
    bundle_directory.py  job "bundle": the engines and the manifest of one version

What computes is a backend's, see cloud_server/models/backend.py.
"""

import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cloud_server.models.backend import Progress
from fleet_model import errors
from fleet_model.bundle import WorkloadSpec
from fleet_model.errors import ExportError

PROGRESS = "export: "  # tells our lines from those of a framework

__all__ = ["PROGRESS", "BundleJob", "ExportResult", "Failure", "InitJob", "Progress", "run_export"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InitJob(_Message):
    """Write what does not change between rounds into a model directory.

    The files of the backend, weights.safetensors (where training starts), and trainer.json last.
    """

    job: Literal["init"] = "init"
    workload: WorkloadSpec
    trainable: str  # a scope that the workload's model knows, e.g. "head"
    batch_size: int = Field(default=32, ge=1)  # static in exported graphs
    directory: Path
    checkpoint: Path | None = None  # a user's own file; None = the workload's initial weights
    calibration: Path | None = None  # folder of samples for int8; None = the workload's own


class BundleJob(_Message):
    """Write a bundle directory: the engines of one version, and manifest.json last."""

    job: Literal["bundle"] = "bundle"
    model: Path  # directory that an InitJob has written
    weights: Path  # safetensors with the trained tensors
    version: int = Field(ge=0)
    created_at: str  # UTC, ISO 8601
    directory: Path
    calibration: Path | None = None


class ExportResult(_Message):
    """What the parity gate and the int8 engine measured."""

    metrics: dict[str, float]


class Failure(_Message):
    """How a job ended that raised one of our errors."""

    error: str  # class name in fleet_model.errors
    message: str


def run_export(job: InitJob | BundleJob, progress: Progress = lambda line: None) -> ExportResult:
    """Run a job in a child process and wait for it.

    Args:
        job: what to export; the directory is complete once this returns.
        progress: is given one line for each file.

    Raises:
        FleetError: the class that the child raised, e.g. CheckpointError for a wrong file, or
            ExportError if the child died.
    """
    command = [sys.executable, "-m", "cloud_server.models.export", job.model_dump_json()]
    last_lines: deque[str] = deque(maxlen=5)
    with (
        tempfile.TemporaryFile("w+") as stdout,
        subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True) as child,
    ):
        try:
            assert child.stderr is not None
            for line in child.stderr:
                if line.startswith(PROGRESS):
                    progress(line.removeprefix(PROGRESS).rstrip())
                elif line.strip():
                    last_lines.append(line.rstrip())
        except BaseException:
            child.kill()
            raise
        code = child.wait()
        return _answer(stdout, code, list(last_lines))


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
