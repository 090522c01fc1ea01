"""Files of a network, each run and compared with it before it is kept."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cloud_server.compression.recipes.learning import ABOUT, NETWORK
from cloud_server.compression.recipes.network import IMAGE, Classifier, read_classifier
from cloud_server.compression.recipes.pictures import TRAIN, part_of
from cloud_server.compression.recipes.recipe import Export, Quantize
from cloud_server.models.keras.litert_graphs import compact_graph
from cloud_server.models.keras.model_files import append_labels, write_model_file
from cloud_server.models.keras.parity_gate import (
    CHECKED,
    litert_outputs,
    require_builtin_operators,
    require_usable_int8,
)
from fleet_model.engine import StagedModel
from fleet_model.errors import ExportError
from fleet_model.types import Tensors

FLOAT_FILE = "model.tflite"


def convert(network: Path, pictures: Path, into: Path) -> None:
    """Fill a folder with the network's .tflite in float32.

    It has LiteRT's own operators alone (no Flex), and its outputs differ from Keras's by a
    thousandth at most (L2, relative).

    Raises:
        ExportError: it would not be so.
    """
    made = read_classifier(network / NETWORK)
    error = _written(made, "tflite", pictures, into / FLOAT_FILE)
    about = {"parameters": made.model.count_params(), "error": error}
    (into / ABOUT).write_text(json.dumps(about), "utf-8")


def quantize(network: Path, converted: Path, pictures: Path, how: Quantize, into: Path) -> None:
    """Fill a folder with a .tflite of each kind, model_KIND.tflite.

    Ranges of int8 are those of training pictures, drawn over all of them.

    Raises:
        ExportError: little is left of what the float32 file answers, or a file is not smaller.
    """
    made, source = read_classifier(network / NETWORK), converted / FLOAT_FILE
    samples = _samples(pictures, how.samples)
    task = made.task
    expected = litert_outputs(StagedModel([source], task.inputs, task.outputs), samples)
    errors = {}
    for kind in how.kinds:
        file = into / f"model_{kind}.tflite"
        content = compact_graph(made.part, task, kind, samples)
        require_builtin_operators(content, file.name)
        file.write_bytes(content)
        append_labels(file, task.classes)
        require_smaller(file, source)
        found = litert_outputs(StagedModel([file], task.inputs, task.outputs), samples)
        errors[kind] = require_usable_int8(expected, found, file.name)
    (into / ABOUT).write_text(json.dumps({"errors": errors}), "utf-8")


def export(network: Path, pictures: Path, how: Export, into: Path) -> None:
    """Fill a folder with the network as model.onnx where it is asked for, checked.

    The .tflite of each step is there already, see `convert`.

    Raises:
        ExportError: the file does not compute what the network computes.
        SettingsError: a library for the format is not installed.
    """
    made = read_classifier(network / NETWORK)
    errors = {
        kind: _written(made, kind, pictures, into / f"model.{kind}")
        for kind in how.formats
        if kind != "tflite"
    }
    (into / ABOUT).write_text(json.dumps({"errors": errors}), "utf-8")


def require_smaller(file: Path, source: Path, *, or_equal: bool = False) -> None:
    """Raise ExportError where a step has made a file larger, or has won nothing."""
    after, before = file.stat().st_size, source.stat().st_size
    if after > before or (after == before and not or_equal):
        raise ExportError(
            f"{file.name} has {after} bytes, and had {before} before this step: nothing is won"
        )


def _written(made: Classifier, kind: str, pictures: Path, file: Path) -> float:
    made.model(np.zeros((1, made.size, made.size, 3), np.float32))  # tf2onnx asks for one call
    return write_model_file(kind, made.part, made.task, _samples(pictures, CHECKED), file)


def _samples(pictures: Path, count: int) -> Sequence[Tensors]:
    """Return training pictures, spread over all of them."""
    inputs = part_of(pictures, TRAIN).inputs
    rows = np.unique(np.linspace(0, len(inputs) - 1, count).astype(int))
    return [{IMAGE: inputs[row].astype(np.float32)} for row in rows]
