"""The last step: each file measured as it answers, one picture at a time."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict

from cloud_server.compression.measuring import latencies, scores
from cloud_server.compression.recipes.opened import open_model
from cloud_server.compression.recipes.pictures import TEST, labels_of, part_of
from cloud_server.compression.recipes.recipe import Benchmark, Precision
from cloud_server.models.backend import Progress

MEASURES = "measures.json"
_WARM = 5  # answers of each that are not timed
Numbers: TypeAlias = Literal["fp32"] | Precision


class Candidate(NamedTuple):
    """A file that may be picked."""

    name: str  # of the step, and of what a sweep has chosen for it
    file: Path
    network: Path  # folder of the network that it is of
    precision: Numbers
    error: float  # relative (L2): of float32 to Keras, of fewer bits to float32
    parameters: int


class Measure(BaseModel):
    """A file in the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    format: Literal["tflite", "onnx"]
    precision: Numbers
    error: float  # see Candidate
    parameters: int
    size_bytes: int
    accuracy: float  # 0..1, of all test pictures
    macro_f1: float  # 0..1
    p50_ms: float  # of one picture, on as many threads as were asked for
    p95_ms: float
    memory_bytes: int | None  # a process that opens it and answers grows by that; None: unknown


def benchmark(
    found: Sequence[Candidate], pictures: Path, how: Benchmark, into: Path, progress: Progress
) -> None:
    """Fill a folder with the measures of all files, in their order.

    Raises:
        BundleError: a file cannot be run here.
        TrainingError: it answers what is no number.
    """
    test, labels = part_of(pictures, TEST), labels_of(pictures)
    inputs = [picture.astype(np.float32) for picture in test.inputs]
    truth = [labels[number] for number in test.classes]
    asks = {one.name: open_model(one.file, how.threads) for one in found}
    every = max(1, len(inputs) // how.timed)
    times = latencies(asks, [*inputs[:_WARM], *inputs[::every][: how.timed]], _WARM)
    measures = []
    for one in found:
        right = scores(asks[one.name], inputs, truth, labels)
        progress(f"{one.name}: accuracy {right.accuracy:.3f}, {times[one.name].p50_ms:.2f} ms")
        measures.append(
            Measure(
                name=one.name,
                format="onnx" if one.file.suffix == ".onnx" else "tflite",
                precision=one.precision,
                error=one.error,
                parameters=one.parameters,
                size_bytes=one.file.stat().st_size,
                accuracy=right.accuracy,
                macro_f1=right.macro_f1,
                p50_ms=times[one.name].p50_ms,
                p95_ms=times[one.name].p95_ms,
                memory_bytes=_memory(one.file, len(inputs[0]), how.threads),
            ).model_dump()
        )
    (into / MEASURES).write_text(json.dumps(measures), "utf-8")


def measures_of(folder: Path) -> list[Measure]:
    """Return what `benchmark` has written."""
    return [Measure.model_validate(one) for one in json.loads((folder / MEASURES).read_bytes())]


def front(found: Sequence[tuple[float, ...]]) -> list[bool]:
    """Return which points no other one is as good as in everything and better in something.

    Args:
        found: what is less is better, in each number.
    """

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    return [not any(beats(other, one) for other in found) for one in found]


def _memory(file: Path, size: int, threads: int) -> int | None:
    module = "cloud_server.compression.recipes.memory"
    command = [sys.executable, "-m", module, str(file), str(size), str(threads)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return int(done.stdout) if done.stdout.strip() else None
