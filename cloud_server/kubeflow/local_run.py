"""The components one after the other on this machine, each in a process as on a cluster.

kfp writes below the folder of work alone; what it says lies in a file there. How each component has
ended is in its own note, for kfp tells neither which of them failed nor why.
"""

import io
import json
import os
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from kfp import local

from cloud_server.kubeflow.component import NOTES, require_output
from cloud_server.kubeflow.definition import RESOURCES, pipeline_of
from cloud_server.kubeflow.options import FleetJob
from cloud_server.kubeflow.stages import LAST
from cloud_server.pipelines.child import PROGRESS, report
from cloud_server.pipelines.steps import working_folder
from cloud_server.state.directory import vacant
from fleet_model import errors
from fleet_model.durable import making_folder, telling_of_the_disk
from fleet_model.errors import FleetError, RoundError, TrainingError

LOG = "kfp.log"


def run_here(job: FleetJob) -> dict[str, Any]:
    """Run the pipeline; its last output becomes `job.out`.

    Raises:
        SettingsError: the folder has content already.
        FleetError: that of the component that failed, with its name.
    """
    out = vacant(job.out)
    work = working_folder(job.work)
    work.chmod(0o700)  # a server directory holds private keys
    root = Path(tempfile.mkdtemp(prefix="run-", dir=work))
    (root / "notes").mkdir()
    os.environ[NOTES] = str(root / "notes")
    try:
        with (root / LOG).open("w", encoding="utf-8") as log, redirect_stdout(_Heard(log)):
            _run(job, root / "artifacts")
    except Exception as error:  # noqa: BLE001  (kfp's, of several classes; the notes know more)
        raise _failed(root, error) from None
    found = {stage: _output(root, stage) for stage in RESOURCES}
    with telling_of_the_disk(str(out), "name another folder"):
        aside = out.with_name(f".{out.name}.new")
        with making_folder(out, aside):
            shutil.copytree(found["publish"], aside, dirs_exist_ok=True, symlinks=True)
    told: dict[str, Any] = {"fleet": str(out), "outputs": {n: str(p) for n, p in found.items()}}
    told |= json.loads((out / LAST["publish"]).read_text("utf-8"))
    told["rounds"] = json.loads((out / LAST["rounds"]).read_text("utf-8"))["rounds"]
    return told


def _run(job: FleetJob, artifacts: Path) -> None:
    # The image plays no part here; "python" in its name spares a warning.
    pipeline = pipeline_of("python", 0)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(artifacts),
        workspace_root=str(artifacts.with_name("workspace")),
    )
    pipeline(
        data=_absolute(job.data), model=_absolute(job.model), options=job.options.model_dump_json()
    )


def _absolute(where: str) -> str:
    return str(Path(where).absolute()) if "://" not in where else where


def _failed(root: Path, error: Exception) -> FleetError:
    """Return the error of the first component that has not ended well."""
    for stage in RESOURCES:
        note = root / "notes" / stage
        if not note.is_file():
            return RoundError(
                f"component {stage} has ended without an answer (killed, for want of memory?); "
                f"its last words are in {root / LOG}"
            )
        told = json.loads(note.read_text("utf-8"))
        if told:
            kind = getattr(errors, told["error"], TrainingError)
            made: FleetError = kind(f"component {stage}: {told['message']}")
            return made
    words = " ".join(str(error).split())
    return RoundError(f"kfp has ended the pipeline: {words}; see {root / LOG}")


def _output(root: Path, stage: str) -> Path:
    """Return the folder that a component has written; raises RoundError where it has not."""
    if not (root / "notes" / stage).is_file():
        raise _failed(root, RoundError(""))
    found = sorted((root / "artifacts").glob(f"*/{stage}/*/{LAST[stage]}"))
    folder = found[-1].parent if found else root / stage
    require_output(stage, folder)
    return folder


class _Heard(io.TextIOBase):
    """Where kfp prints: lines of progress go on, everything goes to a file."""

    def __init__(self, log: io.TextIOBase | Any) -> None:
        self._log, self._line, self._out = log, "", sys.stdout

    def write(self, text: str) -> int:
        self._log.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if line.strip().startswith(PROGRESS):
                with redirect_stdout(self._out):
                    report(line.strip().removeprefix(PROGRESS))
        return len(text)

    def flush(self) -> None:
        self._log.flush()
