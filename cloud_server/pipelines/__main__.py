"""The pipeline's process: the only one that loads PyTorch or Flyte for it."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from cloud_server.models.export.parent import end_with_parent
from cloud_server.pipelines.child import end_with, report
from cloud_server.pipelines.options import PipelineJob
from cloud_server.pipelines.pipeline import run_pipeline
from fleet_model.errors import SettingsError


def main(arguments: Sequence[str]) -> int:
    """Run the job given as JSON; return the exit code."""
    job = PipelineJob.model_validate_json(arguments[0])
    return end_with(lambda: _run(job))


def _run(job: PipelineJob) -> dict[str, Any]:
    if job.flyte is None:
        return run_pipeline(job, report)
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Flyte phones home otherwise
    try:
        from cloud_server.pipelines.flyte_tasks import run_in_flyte
    except ImportError as error:
        raise SettingsError(
            f"--flyte needs {error.name}, which is not installed here: "
            "pip install 'fleetlearn[pipelines]'"
        ) from None
    return run_in_flyte(job, report)


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(sys.argv[1:]))
