"""The process that loads kfp: `cloud-server pipeline kubeflow` starts it."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from cloud_server.kubeflow.options import FleetJob
from cloud_server.models.export.parent import end_with_parent
from cloud_server.pipelines.child import end_with
from fleet_model.errors import SettingsError


def main(arguments: Sequence[str]) -> int:
    """Do the job given as JSON; return the exit code."""
    job = FleetJob.model_validate_json(arguments[0])
    return end_with(lambda: _do(job))


def _do(job: FleetJob) -> dict[str, Any]:
    os.environ.setdefault("DO_NOT_TRACK", "1")
    try:
        from cloud_server.kubeflow.compiling import compile_pipeline
        from cloud_server.kubeflow.local_run import run_here
    except ImportError as error:
        raise SettingsError(
            f"the Kubeflow pipeline needs {error.name}, which is not installed here: "
            "pip install 'fleetlearn[kubeflow]'"
        ) from None
    return compile_pipeline(job) if job.compiled else run_here(job)


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(sys.argv[1:]))
