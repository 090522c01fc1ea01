"""Refuse exported files that do not compute what the Keras model computes.

The converter can drop an activation, leave variables uninitialised or mix up outputs without an
error. So every file is run in LiteRT, as a robot runs it, beside Keras before it is used.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from cloud_server.models.agreement import require_all, require_near, titled
from fleet_model.bundle import Task, TensorSpec
from fleet_model.engine import StagedModel
from fleet_model.errors import ExportError
from fleet_model.keras.model import KerasModel
from fleet_model.keras.stages import Learned, Part
from fleet_model.litert.stage import open_interpreter
from fleet_model.signatures import (
    FEATURES,
    GRADIENT,
    INFER,
    LOSS,
    MAPS,
    OUTPUTS,
    SAMPLE_WEIGHT,
    TARGETS,
    gradient_names,
    only,
    signature_names,
    weight_names,
)
from fleet_model.types import Target, Tensor, Tensors, Weights

CHECKED = 16  # inputs that Keras answers too; eager Keras needs 60 ms each, LiteRT 10
STEPS = 10  # of plain SGD on random batches
PADDED_STEP = 3  # the one whose last rows are padding
# Relative (L2). Lite0 and MobileNetV2 measure 3e-6 (outputs) and 2e-6 (gradients after ten steps).
TOLERANCE = 1e-3
# Where the input of a ReLU is within rounding of its bend, one side lets a gradient pass and the
# other does not. Lite0's last block: 2e-3 in one step of ten, by one ReLU, 7e-7 in the others. So
# gradients may be off by this much in a few steps.
BEND_TOLERANCE, BEND_STEPS = 1e-2, 2
# Relative (L2) error of int8 features. Lite0 and MobileNetV2 measure 0.12 to 0.19.
INT8_TOLERANCE = 0.5


class Batch(NamedTuple):
    """Rows of one step."""

    features: Tensors  # (batch, *feature shape)
    crops: Tensors  # the same, or crops of such, where steps learn from them
    targets: Tensors  # (batch, *target shape)
    sample_weight: Tensor  # (batch,) float32


class Step(NamedTuple):
    """What one graph answers for a batch."""

    loss: float
    gradients: Weights
    outputs: Tensors  # (batch, *output shape); maps, where answers are read from them
    answers: Tensors = MappingProxyType({})  # what was read from these maps


Graph: TypeAlias = Callable[[Weights, Batch], Step]


class Start(NamedTuple):
    """Where the steps start from, and what they are given."""

    weights: Weights
    features: Mapping[str, TensorSpec]  # of Part.inputs; without the batch axis
    task: Task
    batch_size: int
    truths: Sequence[Target] = ()  # drawn from; none: random numbers, class indices where integers
    # Reads answers from maps in Keras. Two maps that differ by rounding may show the same boxes in
    # another order, so both sides read LiteRT's.
    answer: Callable[[Tensors], Mapping[str, Any]] | None = None
    crops: Mapping[str, TensorSpec] | None = None  # what steps learn from; None: from features


def require_builtin_operators(content: bytes, name: str) -> None:
    """Raise ExportError if a .tflite file needs more than LiteRT's own operators."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(content, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    if foreign := sorted({c.CustomCode().decode() for c in codes if c.CustomCode() is not None}):
        raise ExportError(
            f"{name}: needs {', '.join(foreign)}, which robots do not have; replace the layers "
            "behind them (Flex = TensorFlow's own operators)"
        )


def require_same_outputs(
    part: Part, inputs: Sequence[Tensors], actual: Tensors, name: str
) -> float:
    """Return the relative difference of LiteRT's outputs to those of Keras for the same inputs.

    Raises:
        ExportError: that of one output is above TOLERANCE.
    """
    rows = {key: np.stack([sample[key] for sample in inputs[:CHECKED]]) for key in part.inputs}
    expected = {key: np.asarray(value) for key, value in part(rows).items()}
    checked = {key: value[:CHECKED] for key, value in actual.items()}
    return require_all(expected, checked, name, TOLERANCE)


def require_close(expected: Tensors, actual: Tensors, name: str) -> float:
    """Return the relative difference of two engines; raise ExportError above TOLERANCE."""
    return require_all(expected, actual, name, TOLERANCE)


def require_usable_int8(fp32: Tensors, int8: Tensors, name: str) -> float:
    """Return the relative error of int8; raise ExportError if little of the signal is left."""
    return require_all(fp32, int8, name, INT8_TOLERANCE)


def require_same_training(litert: Graph, reference: Graph, start: Start) -> float:
    """Ask both graphs at the same weights for the same random batches, along steps of SGD.

    The steps are those of the reference: on two ways of their own, masks of ReLUs that flip at
    different steps would tell apart deep graphs that compute the same.

    Returns:
        The largest relative difference of a loss, a gradient or the last outputs.

    Raises:
        ExportError: it is above TOLERANCE (of gradients: BEND_TOLERANCE in BEND_STEPS of the
            steps), or a gradient has another shape.
    """
    rng = np.random.default_rng(0)
    weights, worst, bends = dict(start.weights), 0.0, 0
    for number in range(STEPS):
        padded, real = _random_batch(rng, start, padded=number == PADDED_STEP)
        actual, expected = litert(weights, padded), reference(weights, real)
        where = f"in step {number}{' (padded)' if number == PADDED_STEP else ''}"
        bent = False
        for what, e, a in _pairs(expected, actual, start.answer):
            may_bend = what.startswith("gradient") and bends < BEND_STEPS
            most = BEND_TOLERANCE if may_bend else TOLERANCE
            error = require_near(e, a, f"trainer.tflite: {what} {where}", most)
            worst, bent = max(worst, error), bent or error > TOLERANCE
        bends += bent
        rate = _stable_rate(real.crops)
        weights = {name: w - rate * expected.gradients[name] for name, w in weights.items()}
    return worst


def litert_graph(
    file: Path, rest: Part, task: Task, tensors: Sequence[str], maps: Collection[str] = ()
) -> Graph:
    """Return the signatures of a trainer.tflite as one graph.

    Args:
        file: of the graph.
        rest: what is trained, in Keras.
        task: of the whole model.
        tensors: paths of what is trained.
        maps: names of what answers are read from, where they are.

    Raises:
        ExportError: it has other signatures, inputs or outputs than `tensors` ask for.
    """
    interpreter = open_interpreter(file)
    weight, slope = weight_names(tensors), gradient_names(tensors)
    features = signature_names(FEATURES, rest.inputs, FEATURES)
    targets = signature_names(TARGETS, task.targets, only(task.targets))
    outputs = signature_names(OUTPUTS, task.outputs, only(task.outputs))
    drawn = signature_names(MAPS, maps, "")
    taken = [*features.values(), *weight.values()]
    expected = {
        GRADIENT: (
            sorted([*taken, *targets.values(), SAMPLE_WEIGHT]),
            sorted([LOSS, *slope.values()]),
        ),
        INFER: (sorted(taken), sorted([*outputs.values(), *drawn.values()])),
    }
    found = interpreter.get_signature_list()
    for name, (inputs, answers) in expected.items():
        actual = found.get(name, {"inputs": [], "outputs": []})
        if (sorted(actual["inputs"]), sorted(actual["outputs"])) != (inputs, answers):
            raise ExportError(
                f"{file.name}: signature {name} is {actual}, expected {inputs} -> {answers}"
            )
    gradient = interpreter.get_signature_runner(GRADIENT)
    infer = interpreter.get_signature_runner(INFER)

    def run(values: Weights, rows: Batch) -> Step:
        numbers = {weight[path]: values[path] for path in tensors}
        whole = {features[name]: rows.features[name] for name in rest.inputs}
        crops = {features[name]: rows.crops[name] for name in rest.inputs}
        truth = {targets[name]: rows.targets[name] for name in task.targets}
        answer = gradient(**numbers, **crops, **truth, **{SAMPLE_WEIGHT: rows.sample_weight})
        inferred = infer(**numbers, **whole)
        answers = {name: inferred[signature] for name, signature in outputs.items()}
        shown = {name: inferred[signature] for name, signature in drawn.items()}
        return Step(
            loss=float(answer[LOSS]),
            gradients={path: answer[slope[path]] for path in tensors},
            outputs=shown or answers,
            answers=answers if shown else {},
        )

    return run


def keras_graph(
    rest: Part, model: KerasModel, tensors: Sequence[str], steps: Learned | None = None
) -> Graph:
    """Return Keras's own answer, which shares no code with the export; changes the weights."""
    import tensorflow as tf

    steps = steps or Learned(rest, model)
    whole, learned = ({v.path: v for v in one.model.variables} for one in (rest, steps.rest))

    def run(values: Weights, rows: Batch) -> Step:
        for path in tensors:
            whole[path].assign(values[path])
            learned[path].assign(values[path])
        with tf.GradientTape() as tape:
            found = steps.rest(rows.crops)
            loss = steps.definition.loss(rows.targets, found, rows.sample_weight)
        gradients = tape.gradient(loss, [learned[path].value for path in tensors])
        named = {path: g.numpy() for path, g in zip(tensors, gradients, strict=True)}
        outputs = rest(rows.features)
        return Step(float(loss), named, {name: y.numpy() for name, y in outputs.items()})

    return run


def litert_outputs(model: StagedModel, inputs: Sequence[Tensors]) -> dict[str, Tensor]:
    """Return the answers of an engine or trunk, stacked: (samples, *output shape)."""
    answers = [model(tensors) for tensors in inputs]
    return {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}


def _pairs(
    expected: Step, actual: Step, answer: Callable[[Tensors], Mapping[str, Any]] | None
) -> list[tuple[str, Any, Any]]:
    """Return what to compare; rows that are padding have outputs that mean nothing."""
    read = answer(actual.outputs) if answer and actual.answers else {}
    answers = [(titled(n, read), np.asarray(v), actual.answers[n]) for n, v in read.items()]
    outputs = [
        (titled(name, expected.outputs), values, actual.outputs[name][: len(values)])
        for name, values in expected.outputs.items()
    ]
    gradients = [
        (f"gradient of {name}", gradient, actual.gradients[name])
        for name, gradient in expected.gradients.items()
    ]
    return [(LOSS, expected.loss, actual.loss), *outputs, *answers, *gradients]


def _stable_rate(features: Tensors) -> np.float32:
    """Return a rate that neither stalls nor diverges: the curvature grows with |features|^2."""
    length = sum(
        float(np.square(rows).sum(axis=tuple(range(1, rows.ndim))).mean())
        for rows in features.values()
    )
    return np.float32(1.0 / max(1.0, length))


def _random_batch(rng: np.random.Generator, start: Start, *, padded: bool) -> tuple[Batch, Batch]:
    """Return the batch as LiteRT is given it, and without padding as Keras is."""
    size = start.batch_size
    count = max(1, size // 3) if padded else size
    many = max(2, len(start.task.classes))
    features = {name: _drawn(rng, spec, size, many) for name, spec in start.features.items()}
    crops = features
    if start.crops is not None:
        crops = {name: _drawn(rng, spec, size, many) for name, spec in start.crops.items()}
    if start.truths:
        drawn = [start.truths[i] for i in rng.integers(0, len(start.truths), size)]
        targets = {n: np.stack([t.tensors[n] for t in drawn]) for n in start.task.targets}
    else:
        targets = {n: _drawn(rng, spec, size, many) for n, spec in start.task.targets.items()}
    sample_weight = rng.uniform(0.5, 1.5, size).astype(np.float32)
    for rows in (*features.values(), *crops.values(), *targets.values(), sample_weight):
        rows[count:] = 0
    whole = Batch(features, crops, targets, sample_weight)
    cut = [{n: rows[:count] for n, rows in one.items()} for one in (features, crops, targets)]
    return whole, Batch(cut[0], cut[1], cut[2], sample_weight[:count])


def _drawn(rng: np.random.Generator, spec: TensorSpec, size: int, many: int) -> Tensor:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.random((size, *spec.shape), np.float32).astype(dtype, copy=False)
    return rng.integers(0, many, (size, *spec.shape), dtype)
