"""The export process: the only part of the server that loads an ML framework."""

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter

from cloud_server.models.export import (
    PROGRESS,
    BundleJob,
    ExportResult,
    Failure,
    FileJob,
    InitJob,
)
from cloud_server.models.export.bundle_directory import write_bundle_directory
from cloud_server.models.export.model_directory import write_model_directory
from cloud_server.models.export.model_file import write_model_file
from cloud_server.models.export.parent import end_with_parent
from fleet_model.errors import FleetError, StorageError

FULL = os.strerror(errno.ENOSPC)


def main(arguments: Sequence[str]) -> int:
    """Run the job given as JSON; return the exit code."""
    kind = Annotated[InitJob | BundleJob | FileJob, Field(discriminator="job")]
    job: InitJob | BundleJob | FileJob = TypeAdapter(kind).validate_json(arguments[0])
    answer: BaseModel
    try:
        answer, code = _done(job), 0
    except FleetError as error:
        answer, code = _failure(error), error.exit_code
    except Exception as error:
        if FULL not in str(error):  # frameworks raise classes of their own, and quote the system
            raise
        made = job.file if isinstance(job, FileJob) else job.directory
        full = StorageError(f"{made.parent}: {FULL}; make room on its disk, then run it again")
        answer, code = _failure(full), full.exit_code
    print(answer.model_dump_json(), flush=True)  # noqa: T201  (read by run_export)
    return code


def _done(job: InitJob | BundleJob | FileJob) -> ExportResult:
    if isinstance(job, FileJob):
        return write_model_file(job, _report)
    if isinstance(job, BundleJob):
        return write_bundle_directory(job, _report)
    result = write_model_directory(job, _report)
    if job.bundle is None:
        return result
    _report(f"version {job.bundle.version}")
    return ExportResult(metrics={**result.metrics, **_done(job.bundle).metrics})


def _failure(error: FleetError) -> Failure:
    return Failure(error=type(error).__name__, message=str(error))


def _report(line: str) -> None:
    print(f"{PROGRESS}{line}", file=sys.stderr, flush=True)  # noqa: T201  (read by run_export)


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(sys.argv[1:]))
