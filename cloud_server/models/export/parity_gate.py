"""Refuse exported files that do not compute what the Keras model computes.

The converter can drop an activation, leave variables uninitialised or mix up outputs without an
error. So every file is run in LiteRT, as a robot runs it, beside Keras before it is used.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from fleet_model.engine import Stage, open_interpreter, run_stages
from fleet_model.errors import ExportError
from fleet_model.types import Tensor, Weights
from fleet_model.workload import Workload

if TYPE_CHECKING:
    import keras

CHECKED = 16  # inputs that Keras answers too; eager Keras needs 60 ms each, LiteRT 10
STEPS = 10  # of plain SGD on random batches
PADDED_STEP = 3  # the one whose last rows are padding
# Relative (L2). Lite0 and MobileNetV2 measure 3e-6 (outputs) and 2e-6 (gradients after ten steps).
TOLERANCE = 1e-3
# Relative (L2) error of int8 features. Lite0 and MobileNetV2 measure 0.12 to 0.19.
INT8_TOLERANCE = 0.5


class Batch(NamedTuple):
    """Rows of one step."""

    features: Tensor  # (batch, *feature shape) float32
    targets: Tensor  # (batch,) int32
    sample_weight: Tensor  # (batch,) float32


class Step(NamedTuple):
    """What one graph answers for a batch."""

    loss: float
    gradients: Weights
    outputs: Tensor  # (batch, classes) logits


Graph: TypeAlias = Callable[[Weights, Batch], Step]


class Start(NamedTuple):
    """Where the steps start from."""

    weights: Weights
    feature_shape: tuple[int, ...]  # without the batch axis
    batch_size: int
    classes: int


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
    model: "keras.Model", inputs: Sequence[Tensor], actual: Tensor, name: str
) -> float:
    """Return the relative difference of LiteRT's outputs to those of Keras for the same inputs.

    Raises:
        ExportError: it is above TOLERANCE.
    """
    rows = np.stack(inputs[:CHECKED])
    expected = model(rows, training=False).numpy()
    return _require(expected, actual[:CHECKED], f"{name}: outputs", TOLERANCE)


def require_usable_int8(fp32: Tensor, int8: Tensor, name: str) -> float:
    """Return the relative error of int8; raise ExportError if little of the signal is left."""
    return _require(fp32, int8, f"{name}: outputs", INT8_TOLERANCE)


def require_same_training(litert: Graph, reference: Graph, start: Start) -> float:
    """Train both graphs from the same weights on the same random batches, each on its own.

    Returns:
        The largest relative difference of a loss, a gradient or the last outputs.

    Raises:
        ExportError: it is above TOLERANCE, or a gradient has another shape.
    """
    rng = np.random.default_rng(0)
    ours, theirs = dict(start.weights), dict(start.weights)
    worst = 0.0
    for number in range(STEPS):
        padded, real = _random_batch(rng, start, padded=number == PADDED_STEP)
        actual, expected = litert(ours, padded), reference(theirs, real)
        where = f"in step {number}{' (padded)' if number == PADDED_STEP else ''}"
        for what, e, a in _pairs(expected, actual):
            worst = max(worst, _require(e, a, f"trainer.tflite: {what} {where}", TOLERANCE))
        rate = _stable_rate(real.features)
        ours = {name: w - rate * actual.gradients[name] for name, w in ours.items()}
        theirs = {name: w - rate * expected.gradients[name] for name, w in theirs.items()}
    return worst


def litert_graph(file: Path, tensors: Sequence[str]) -> Graph:
    """Return the signatures of a trainer.tflite as one graph.

    Raises:
        ExportError: it has other signatures, inputs or outputs than `tensors` ask for.
    """
    interpreter = open_interpreter(file)
    numbers = [f"{i:03d}" for i in range(len(tensors))]
    weights = [f"w{n}" for n in numbers]
    batch = ["features", "sample_weight", "targets"]
    expected = {
        "gradient": (sorted([*batch, *weights]), sorted(["loss", *(f"g{n}" for n in numbers)])),
        "infer": (sorted(["features", *weights]), ["outputs"]),
    }
    found = interpreter.get_signature_list()
    for name, (inputs, outputs) in expected.items():
        actual = found.get(name, {"inputs": [], "outputs": []})
        if (sorted(actual["inputs"]), sorted(actual["outputs"])) != (inputs, outputs):
            raise ExportError(
                f"{file.name}: signature {name} is {actual}, expected {inputs} -> {outputs}"
            )
    gradient = interpreter.get_signature_runner("gradient")
    infer = interpreter.get_signature_runner("infer")

    def run(values: Weights, rows: Batch) -> Step:
        numbered = {w: values[path] for w, path in zip(weights, tensors, strict=True)}
        answer = gradient(**rows._asdict(), **numbered)
        outputs = infer(features=rows.features, **numbered)["outputs"]
        named = {path: answer[f"g{n}"] for n, path in zip(numbers, tensors, strict=True)}
        return Step(float(answer["loss"]), named, outputs)

    return run


def keras_graph(head: "keras.Model", workload: Workload, tensors: Sequence[str]) -> Graph:
    """Return Keras's own answer, which shares no code with the export; changes `head`'s weights."""
    import tensorflow as tf

    variables = {v.path: v for v in head.variables}

    def run(values: Weights, rows: Batch) -> Step:
        for path in tensors:
            variables[path].assign(values[path])
        with tf.GradientTape() as tape:
            outputs = head(rows.features, training=False)
            loss = workload.loss(rows.targets, outputs, rows.sample_weight)
        gradients = tape.gradient(loss, [variables[path].value for path in tensors])
        named = {path: g.numpy() for path, g in zip(tensors, gradients, strict=True)}
        return Step(float(loss), named, outputs.numpy())

    return run


def litert_outputs(files: Sequence[Path], inputs: Sequence[Tensor]) -> Tensor:
    """Return the answers of one engine, stacked."""
    stages = [Stage(file) for file in files]
    return np.stack([run_stages(stages, tensor) for tensor in inputs])


def _pairs(expected: Step, actual: Step) -> list[tuple[str, Any, Any]]:
    """Return what to compare; rows that are padding have outputs that mean nothing."""
    rows = actual.outputs[: len(expected.outputs)]
    gradients = [
        (f"gradient of {name}", gradient, actual.gradients[name])
        for name, gradient in expected.gradients.items()
    ]
    return [("loss", expected.loss, actual.loss), ("outputs", expected.outputs, rows), *gradients]


def _stable_rate(features: Tensor) -> np.float32:
    """Return a rate that neither stalls nor diverges: the curvature grows with |features|^2."""
    length = float(np.square(features).sum(axis=tuple(range(1, features.ndim))).mean())
    return np.float32(1.0 / max(1.0, length))


def _random_batch(rng: np.random.Generator, start: Start, *, padded: bool) -> tuple[Batch, Batch]:
    """Return the batch as LiteRT is given it, and without padding as Keras is."""
    size = start.batch_size
    count = max(1, size // 3) if padded else size
    features = rng.random((size, *start.feature_shape), np.float32)
    targets = rng.integers(0, start.classes, size, np.int32)
    sample_weight = rng.uniform(0.5, 1.5, size).astype(np.float32)
    for rows in (features, targets, sample_weight):
        rows[count:] = 0
    return Batch(features, targets, sample_weight), Batch(
        features[:count], targets[:count], sample_weight[:count]
    )


def _require(expected: Any, actual: Any, what: str, tolerance: float) -> float:
    if np.shape(expected) != np.shape(actual):
        raise ExportError(
            f"{what} have shape {np.shape(actual)}, expected {np.shape(expected)}; the file is not "
            "used"
        )
    difference = np.subtract(actual, expected, dtype=np.float64)  # garbage overflows float32
    error = float(np.linalg.norm(difference)) / max(float(np.linalg.norm(expected)), 1e-6)
    if not error <= tolerance:  # NaN is refused too
        raise ExportError(
            f"{what} are off by {error:.1e} (relative), at most {tolerance:.0e} is allowed; "
            "the file is not used"
        )
    return error
