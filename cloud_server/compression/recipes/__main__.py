"""The process that compresses: the only one that loads Keras for it."""

import os
import sys
from collections.abc import Sequence

from cloud_server.compression.recipes.pipeline import CompressJob, run_compression
from cloud_server.models.export.parent import end_with_parent
from cloud_server.pipelines.child import end_with, report


def main(arguments: Sequence[str]) -> int:
    """Run the job given as JSON; return the exit code."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    job = CompressJob.model_validate_json(arguments[0])
    return end_with(lambda: run_compression(job, report))


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(sys.argv[1:]))
