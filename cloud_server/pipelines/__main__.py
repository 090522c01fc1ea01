"""The pipeline's process: the only one that loads PyTorch or Flyte for it."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from cloud_server.models.export import Failure
from cloud_server.models.export.parent import end_with_parent
from cloud_server.pipelines.child import ANSWER, PROGRESS, Done
from cloud_server.pipelines.options import PipelineJob
from cloud_server.pipelines.pipeline import run_pipeline
from fleet_model.errors import FleetError, SettingsError


def main(arguments: Sequence[str]) -> int:
    """Run the job given as JSON; return the exit code."""
    job = PipelineJob.model_validate_json(arguments[0])
    answer: Done | Failure
    try:
        answer, code = Done(told=_run(job)), 0
    except FleetError as error:
        answer = Failure(error=type(error).__name__, message=str(error))
        code = error.exit_code
    print(f"{ANSWER}{answer.model_dump_json()}", flush=True)  # noqa: T201  (read by run_in_child)
    return code


def _run(job: PipelineJob) -> dict[str, Any]:
    if job.flyte is None:
        return run_pipeline(job, _report)
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Flyte phones home otherwise
    try:
        from cloud_server.pipelines.flyte_tasks import run_in_flyte
    except ImportError as error:
        raise SettingsError(
            f"--flyte needs {error.name}, which is not installed here: "
            "pip install 'fleetlearn[pipelines]'"
        ) from None
    return run_in_flyte(job, _report)


def _report(line: str) -> None:
    print(f"{PROGRESS}{line}", flush=True)  # noqa: T201  (read by run_in_child)


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(sys.argv[1:]))
