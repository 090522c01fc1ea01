"""Write a whole Keras model as one file for other programs; each is run before it is given away."""

import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cloud_server.models.keras.litert_graphs import float_graph
from cloud_server.models.keras.parity_gate import (
    CHECKED,
    litert_outputs,
    require_builtin_operators,
    require_close,
    require_same_outputs,
)
from cloud_server.models.own_weights import LABELS
from fleet_model.bundle import Task
from fleet_model.engine import StagedModel
from fleet_model.errors import ExportError, SettingsError
from fleet_model.keras.stages import Part
from fleet_model.types import Tensors

OPSET = 17  # tf2onnx 1.17 writes at most 18; ONNX Runtime reads this one since 2022


def write_model_file(
    kind: str, part: Part, task: Task, inputs: Sequence[Tensors], file: Path
) -> float:
    """Write `file` and return the largest relative difference of its outputs to Keras.

    Args:
        kind: a key of KINDS.
        part: the whole model.
        task: of the model; its classes go into the file.
        inputs: without the batch axis; it is checked with them.
        file: is written whole, or not at all if it does not compute what the model computes.

    Raises:
        ExportError: it does not.
        SettingsError: a library that this needs is not installed.
    """
    return KINDS[kind](part, task, inputs, file)


def _keras(part: Part, task: Task, inputs: Sequence[Tensors], file: Path) -> float:
    import keras

    part.model.save(file)
    with zipfile.ZipFile(file, "a") as archive:  # Keras reads its own members alone
        archive.writestr(LABELS, json.dumps(task.classes))
    again = Part(keras.saving.load_model(file, compile=False), part.inputs, part.outputs)
    rows = {name: np.stack([one[name] for one in inputs[:CHECKED]]) for name in part.inputs}
    answers = {name: np.asarray(value) for name, value in again(rows).items()}
    return require_same_outputs(part, inputs, answers, file.name)


def _tflite(part: Part, task: Task, inputs: Sequence[Tensors], file: Path) -> float:
    answers = _litert(part, task, inputs, file)
    error = require_same_outputs(part, inputs, answers, file.name)
    append_labels(file, task.classes)
    return error


def append_labels(file: Path, labels: Sequence[str]) -> None:
    """Put the labels into a .tflite file, as the metadata of TensorFlow Lite has it.

    That is a zip archive behind the graph, which readers of the graph do not look at.
    """
    with zipfile.ZipFile(file, "a") as archive:
        named = zipfile.ZipInfo("labels.txt")  # of no date: the same model gives the same bytes
        archive.writestr(named, "".join(f"{label}\n" for label in labels))


def _litert(part: Part, task: Task, inputs: Sequence[Tensors], file: Path) -> Tensors:
    content = float_graph(part, task, first=True, last=True)
    require_builtin_operators(content, file.name)
    file.write_bytes(content)
    return litert_outputs(StagedModel([file], task.inputs, task.outputs), inputs[:CHECKED])


def _onnx(part: Part, task: Task, inputs: Sequence[Tensors], file: Path) -> float:
    try:
        import onnx
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise SettingsError(
            f"--format onnx needs {error.name}: pip install 'fleetlearn[onnx]' on the server"
        ) from None
    import tensorflow as tf

    taken = [
        tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, name)
        for name, tensor in zip(part.inputs, part.model.inputs, strict=True)
    ]

    def answer(*tensors: object) -> dict[str, object]:
        return part(dict(zip(part.inputs, tensors, strict=True)))

    try:
        graph, _ = tf2onnx.convert.from_function(
            tf.function(answer, input_signature=taken), input_signature=taken, opset=OPSET
        )
    except Exception as error:  # noqa: BLE001  (a converter raises whatever its steps raise)
        first = str(error).strip().partition("\n")[0][:200]
        raise ExportError(f"{file.name}: tf2onnx cannot convert this model: {first}") from None
    onnx.helper.set_model_props(graph, {LABELS: json.dumps(task.classes)})
    onnx.save(graph, file)
    rows = {name: np.stack([one[name] for one in inputs[:CHECKED]]) for name in part.inputs}
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    answers = dict(zip(part.outputs, session.run(list(part.outputs), rows), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        litert = _litert(part, task, inputs, Path(folder) / "model.tflite")
    return require_close(litert, answers, file.name)


KINDS: Mapping[str, Callable[[Part, Task, Sequence[Tensors], Path], float]] = {
    "keras": _keras,
    "tflite": _tflite,
    "onnx": _onnx,
}
