"""What a model answers to this robot's examples, for whoever measures it in a child process."""

import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edge_agent.examples.source import SourceSpec
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import BundleError, FleetError, FrameError
from fleet_model.types import Encoded, Example, Prediction, Tensors
from fleet_model.workload import Workload, takes_instructions

log = logging.getLogger(__name__)


class Answered(NamedTuple):
    """What one engine makes of one example."""

    predictions: Sequence[Prediction]
    milliseconds: float  # without reading and encoding the input
    outputs: Tensors
    target: Tensors | None  # None: the truth is not known to this engine
    context: Any = None  # of the encoded input


def examples_for(
    workload: Workload, spec: Mapping[str, Any] | None, most: int
) -> tuple[list[Example], bool]:
    """Return held-out examples with a truth and True; else any frames, and False.

    Args:
        workload: whose truth.
        spec: fields of SourceSpec; None: no examples.
        most: so many, drawn with a fixed seed.
    """
    if spec is None or not most:
        return [], False
    task = workload.task
    source, boxes = SourceSpec(**spec).renamed(task.former), task.answer == "boxes"
    try:
        answers = takes_instructions(workload)
        found = list(source.examples(task.classes, boxes=boxes, answers=answers))
        if not found and (task.classes or boxes):
            found = list(source.examples())
    except FleetError as error:  # it is not the model's fault
        log.warning("the new model is tried without this robot's examples: %s", error)
        return [], False
    except Exception:
        log.exception("the new model is tried without this robot's examples")
        return [], False
    truths = [one for one in found if one.held_out and _target(workload, one) is not None]
    chosen = truths or found
    if len(chosen) > most:
        some = random.Random(0).sample(range(len(chosen)), most)  # noqa: S311
        chosen = [chosen[index] for index in sorted(some)]
    return chosen, bool(truths)


def answer_of(engine: TFLiteEngine, example: Example) -> Answered | None:
    """Return the answer to an example; None for one that cannot be read."""
    try:
        encoded: Encoded = engine.workload.encode(example.raw)
    except FrameError:
        return None
    begin = time.perf_counter()
    outputs = engine.run(encoded.inputs)
    if any(np.isnan(output).any() for output in outputs.values()):
        raise BundleError(f"version {engine.manifest.version} answers what is no number")
    predictions = engine.workload.decode(outputs, encoded.context)
    milliseconds = (time.perf_counter() - begin) * 1e3
    target = _target(engine.workload, example)
    return Answered(predictions, milliseconds, outputs, target, encoded.context)


def _target(workload: Workload, example: Example) -> Tensors | None:
    try:
        return workload.target(example).tensors
    except FrameError:
        return None
