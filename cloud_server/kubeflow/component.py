"""A stage as the process of a component: what it writes is looked at, and errors have its name.

kfp calls a component good that ends with exit code 0, whatever it has written or measured.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cloud_server.kubeflow import stages
from cloud_server.kubeflow.options import FleetOptions
from cloud_server.pipelines.child import report
from fleet_model.errors import FleetError, RoundError, TrainingError, one_line

NOTES = "KUBEFLOW_RUN_NOTES"  # folder in which a run on this machine learns how each ended
_LONGEST = 400


def do(
    name: str, options: str, into: str, metrics: Any, given: Mapping[str, str], **more: str
) -> str:
    """Do a stage and end the process if it fails: exit code and words are those of the error.

    Args:
        name: of the stage.
        options: FleetOptions in JSON.
        into: the component's output.
        metrics: kfp's, which get what was measured.
        given: stage -> the folder that it has written.
        more: what prepare is given besides.

    Returns:
        What names the results that follow; "" but of prepare.
    """
    try:
        answer = _done(name, options, into, metrics, given, more)
    except FleetError as error:
        _fail(name, error)
    except Exception as error:  # noqa: BLE001  (a person reads one line, whatever went wrong)
        words = " ".join(str(error).split())[:_LONGEST]
        _fail(name, TrainingError(f"{type(error).__name__}: {words}"))
    _note(name, {})
    return answer


def _done(
    name: str,
    options: str,
    into: str,
    metrics: Any,
    given: Mapping[str, str],
    more: Mapping[str, str],
) -> str:
    for stage, folder in given.items():
        require_output(stage, Path(folder))
    folders = {stage: Path(folder) for stage, folder in given.items()}
    measures, answer = _stage(name, folders, Path(into), more)(
        FleetOptions.model_validate_json(options)
    )
    require_output(name, Path(into))
    for measure, value in measures.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"its {measure} is {value}, which is no number: nothing after it is done. Take a "
                "smaller --learning-rate, and look at the data"
            )
        metrics.log_metric(measure, value)
    return answer


def require_output(stage: str, folder: Path) -> None:
    """Raise RoundError where a stage has not written what it should have."""
    if not (folder / stages.LAST[stage]).is_file():
        raise RoundError(
            f"component {stage} has ended without its output: expected {stages.LAST[stage]} in it. "
            "Run it again, and report it if it ends so once more"
        )


def _stage(
    name: str, given: Mapping[str, Path], into: Path, more: Mapping[str, str]
) -> Callable[[FleetOptions], tuple[Mapping[str, float], str]]:
    into.mkdir(parents=True, exist_ok=True)
    calls: dict[str, Callable[[FleetOptions], Any]] = {
        "prepare": lambda asked: stages.prepare(more["data"], more["model"], asked, into, report),
        "clients": lambda asked: stages.clients(given["prepare"], asked, into),
        "rounds": lambda asked: stages.rounds(
            given["prepare"], given["clients"], asked, into, report
        ),
        "profiles": lambda asked: stages.profiles(
            given["prepare"], given["rounds"], asked, into, report
        ),
        "publish": lambda _: stages.publish(given["rounds"], given["profiles"], into, report),
    }

    def call(asked: FleetOptions) -> tuple[Mapping[str, float], str]:
        answer = calls[name](asked)
        return answer if name == "prepare" else (answer, "")

    return call


def _fail(name: str, error: FleetError) -> None:
    words = one_line(str(error))
    _note(name, {"error": type(error).__name__, "message": words})
    print(f"ERROR: component {name}: {words}", file=sys.stderr, flush=True)  # noqa: T201  (a pod's log)
    raise SystemExit(error.exit_code)


def _note(name: str, how: Mapping[str, str]) -> None:
    if folder := os.environ.get(NOTES):
        Path(folder, name).write_text(json.dumps(how), "utf-8")
