"""Start a pipeline in a process of its own, so that the command line loads no ML framework."""

import subprocess
import sys
from collections import deque
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from cloud_server.models.backend import Progress
from cloud_server.models.export import Failure
from cloud_server.pipelines.options import PipelineJob
from fleet_model import errors
from fleet_model.errors import StoppedError, TrainingError

PROGRESS, ANSWER = "pipeline: ", "pipeline ends: "  # tell our lines from those of a framework


class Done(BaseModel):
    """How a pipeline ended that has delivered its result."""

    told: dict[str, Any]  # pipeline.json


def run_in_child(job: PipelineJob, progress: Progress) -> dict[str, Any]:
    """Run a job in a child process; return what pipeline.json says.

    The child ends when its parent does. What it has done is kept: the same call goes on from there.

    Raises:
        FleetError: the class that the child raised, TrainingError if it died, StoppedError at
            Ctrl-C.
    """
    command = [sys.executable, "-m", "cloud_server.pipelines", job.model_dump_json()]
    last, answer = deque[str](maxlen=5), ""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                if line.startswith(PROGRESS):
                    progress(line.removeprefix(PROGRESS).rstrip())
                elif line.startswith(ANSWER):
                    answer = line.removeprefix(ANSWER)
                elif line.strip():
                    last.append(line.strip())
        except BaseException as error:
            child.kill()
            if isinstance(error, KeyboardInterrupt):
                raise StoppedError("stopped; the same command goes on from what is done") from None
            raise
    return _told(answer, child.returncode, " | ".join(last))


def _told(answer: str, code: int, last: str) -> dict[str, Any]:
    try:
        found: Done | Failure = TypeAdapter(Done | Failure).validate_json(answer)
    except ValidationError:
        how = f"signal {-code} (9 = out of memory?)" if code < 0 else f"exit code {code}"
        raise TrainingError(
            f"the pipeline's process ended with {how}; its last lines: {last}. The same command "
            "goes on from what is done"
        ) from None
    if isinstance(found, Failure):
        raise getattr(errors, found.error, TrainingError)(found.message)
    return found.told
