"""Run a model by both parts of LiteRT in turns, in a child process that may end by that."""

import logging
import time
from collections.abc import Sequence
from itertools import islice

import numpy as np

from edge_agent.models.runtime_choice import FASTER
from edge_agent.models.trial import best_of
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import BundleError, FleetError, FrameError
from fleet_model.litert.runtime import Accelerator, Measured, Runtime
from fleet_model.types import Encoded, Example, Tensor, Tensors

INPUTS = 20  # at most
# Answers of each, at most. After FIRST_PAIRS, and all inputs, no more once CompiledModel was not
# faster in half of the pairs: most graphs. One that is in nine of ten is lost on 1 of 3000 robots.
PAIRS, FIRST_PAIRS, LONGEST_S = 200, 10, 3.0
SAMPLES = 4  # of the workload, where this robot has no examples
log = logging.getLogger(__name__)


def compare(
    interpreter: TFLiteEngine, examples: Sequence[Example], accelerator: Accelerator
) -> Measured:
    """Return times and differences.

    Args:
        interpreter: the model, by the Interpreter.
        examples: of this robot; there may be none.
        accelerator: of CompiledModel.
    """
    found, runtime = Measured(accelerator=accelerator), Runtime("compiled", accelerator)
    try:
        compiled = interpreter.reopened(runtime)
        compiled.warm_up()
        inputs = _inputs(interpreter, examples)
        ours, theirs, differences = _in_turns(interpreter, compiled, inputs)
    except BundleError as error:
        found.why = str(error)
        return found
    except Exception as error:  # of LiteRT's Python, or of a plug-in
        log.warning("CompiledModel is not compared", exc_info=True)
        found.why = f"it fails: {type(error).__name__}"
        return found
    found.inputs, found.difference = len(inputs), max(differences)
    found.interpreter_ms, found.compiled_ms, found.pairs = min(ours), min(theirs), len(ours)
    found.faster = _faster(ours, theirs)
    if compiled.runtime != runtime:  # it has fallen back
        found.why = "it failed at an answer"
    return found


def _inputs(engine: TFLiteEngine, examples: Sequence[Example]) -> Sequence[Encoded]:
    workload = engine.workload
    inputs = []
    for example in examples[:INPUTS]:
        try:
            inputs.append(workload.encode(example.raw))
        except FrameError:
            continue
    if not inputs:
        try:
            inputs = [one.encoded for one in islice(workload.samples(None), SAMPLES)]
        except FleetError:
            inputs = []
    specs = workload.task.inputs
    zeros = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
    return inputs or [Encoded(inputs=zeros)]


def _difference(engine: TFLiteEngine, one: Encoded, expected: Tensors, found: Tensors) -> float:
    """Return the largest difference as a share of an output's largest value; 1 for other words."""
    first, other = (
        best_of(engine.workload.decode(outputs, one.context)) for outputs in (expected, found)
    )
    if first != other:
        return 1.0
    return max(difference(expected[name], found[name]) for name in expected)


def difference(expected: Tensor, found: Tensor) -> float:
    """Return how far two outputs are apart, as a share of the largest value; 1 where it is none."""
    if not np.issubdtype(expected.dtype, np.floating):
        return float(not np.array_equal(expected, found))
    largest = float(np.abs(expected).max(initial=0.0))
    apart = float(np.abs(expected - found).max(initial=0.0))
    share = apart / largest if largest else float(apart > 0)
    return share if np.isfinite(share) else 1.0


def _in_turns(
    interpreter: TFLiteEngine, compiled: TFLiteEngine, inputs: Sequence[Encoded]
) -> tuple[list[float], list[float], list[float]]:
    """Return the milliseconds of each, in pairs, and the difference of answers for every input.

    What is busy for a moment is so for both of a pair.
    """
    begin = time.perf_counter()
    engines = (interpreter, compiled)
    times: dict[TFLiteEngine, list[float]] = {engine: [] for engine in engines}
    ours, theirs, differences = times[interpreter], times[compiled], list[float]()
    for number in range(PAIRS):
        one, answers = inputs[number % len(inputs)], dict[TFLiteEngine, Tensors]()
        for engine in reversed(engines) if number % 2 else engines:
            before = time.perf_counter()
            answers[engine] = engine.run(one.inputs)
            times[engine].append((time.perf_counter() - before) * 1e3)
        if number < len(inputs):
            differences.append(
                _difference(interpreter, one, answers[interpreter], answers[compiled])
            )
        if len(ours) >= max(FIRST_PAIRS, len(inputs)) and (
            2 * _faster(ours, theirs) < len(ours) or time.perf_counter() - begin > LONGEST_S
        ):
            break
    return ours, theirs, differences


def _faster(ours: Sequence[float], theirs: Sequence[float]) -> int:
    return sum(their < FASTER * our for our, their in zip(ours, theirs, strict=True))
