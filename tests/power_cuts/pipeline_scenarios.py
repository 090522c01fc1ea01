"""Power cuts while a pipeline fetches, keeps the results of its steps, and delivers."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from power_cuts import Scenario
from recorder import mark

from cloud_server.pipelines.options import PipelineJob
from cloud_server.pipelines.pipeline import found
from cloud_server.pipelines.places import DONE, MODEL_FILES, deliver
from cloud_server.pipelines.steps import step

ROWS = "text,label\n" + "a good film,good\n" * 400
STEPS = "prepare", "train"


def _sources(root: Path) -> None:
    """Make a model, and data in what is read as a bucket: a folder by its address."""
    for name in MODEL_FILES:
        (root / "model").mkdir(exist_ok=True)
        (root / "model" / name).write_text(name)
    (root / "bucket").mkdir()
    (root / "bucket" / "reviews.csv").write_text(ROWS)


def _run(root: Path) -> None:
    """Do two runs with other results, the second in place of the first."""
    # What is fetched goes by an object's time, and a tree after a cut is made anew.
    os.utime(root / "bucket" / "reviews.csv", (0, 0))
    for number in ("1", "2"):
        job = PipelineJob(
            data=(root / "bucket" / "reviews.csv").as_uri(),
            model=str(root / "model"),
            out=str(root / "out"),
            work=root / "work" / number,
        )
        data, _ = found(job, lambda line: None)
        assert data.read_text() == ROWS  # a torn copy would be learned from
        mark()
        for name in STEPS:
            _step(root / "work" / number, name, number)
            mark()
        result = _step(root / "work" / number, "train", number)
        if _delivered(root) not in ("2", number):
            deliver(result, {"run": number}, job.out, {})
        mark()


def _step(work: Path, name: str, number: str) -> Path:
    def make(into: Path) -> None:
        (into / "metrics.json").write_text(json.dumps({"of": [number] * 1000}))

    return step(work, name, "0" * 64, make, lambda line: None)


def _delivered(root: Path) -> str:
    """Return which run's result is there, whole; "" for none."""
    if not (root / "out" / DONE).is_file():
        return ""
    number = str(json.loads((root / "out" / DONE).read_text())["run"])
    assert _of(root / "out") == number
    return number


def _of(result: Path) -> str:
    of = json.loads((result / "metrics.json").read_text())["of"]
    assert len(of) == 1000
    return str(of[0])


def _found(root: Path) -> tuple[str, list[str], int]:
    """Return what was delivered, the steps that need not be done again, and what was fetched."""
    results = sorted(one for name in STEPS for one in (root / "work").glob(f"*/{name}-*"))
    for result in results:
        assert _of(result) == result.parent.name
    fetched = list((root / "work").glob("*/fetched-*/*.csv"))
    assert all(file.read_text() == ROWS for file in fetched)
    kept = [f"{one.parent.name}/{one.name}" for one in results]
    return _delivered(root), kept, len(fetched)


def _without_result(states: list[Any], step: int) -> Sequence[Any]:
    """Return what is there when the result before has just been moved out of the way."""
    delivers = step + 1 < len(states) and states[step][0] != states[step + 1][0]
    return [("", *states[step][1:])] if delivers else []


PIPELINE = Scenario(
    prepare=_sources,
    act=_run,
    observe=_found,
    resume=_run,
    between=_without_result,
)
