"""Start a pipeline in a process of its own, so that the command line loads no ML framework.

Both sides of it: `run_in_child` starts and reads it, `end_with` is what such a process does.
"""

import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from cloud_server.models.backend import Progress
from cloud_server.models.export import Failure
from fleet_model import errors
from fleet_model.errors import FleetError, StoppedError, TrainingError

PROGRESS, ANSWER = "pipeline: ", "pipeline ends: "  # tell our lines from those of a framework


class Done(BaseModel):
    """How a pipeline ended that has delivered its result."""

    told: dict[str, Any]  # pipeline.json


def run_in_child(
    job: BaseModel, progress: Progress, module: str = "cloud_server.pipelines"
) -> dict[str, Any]:
    """Run a job in a child process; return what pipeline.json says.

    The child ends when its parent does. What it has done is kept: the same call goes on from there.

    Args:
        job: given to the module as JSON.
        progress: is told what it reports.
        module: is run with `python -m`; it ends with `end_with`.

    Raises:
        FleetError: the class that the child raised, TrainingError if it died, StoppedError at
            Ctrl-C.
    """
    command = [sys.executable, "-m", module, job.model_dump_json()]
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


def end_with(run: Callable[[], dict[str, Any]]) -> int:
    """Run the job of this process; tell its parent, and return the exit code."""
    answer: Done | Failure
    try:
        answer, code = Done(told=run()), 0
    except FleetError as error:
        answer = Failure(error=type(error).__name__, message=str(error))
        code = error.exit_code
    print(f"{ANSWER}{answer.model_dump_json()}", flush=True)  # noqa: T201  (read by run_in_child)
    return code


def report(line: str) -> None:
    """Tell the parent of this process what is done."""
    print(f"{PROGRESS}{line}", flush=True)  # noqa: T201  (read by run_in_child)


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
