"""Write parts of a torch model for ONNX Runtime; each file is run before it is used."""

import io
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cloud_server.models.agreement import require_all, require_near
from cloud_server.models.own_weights import LABELS
from fleet_model.bundle import TensorSpec
from fleet_model.errors import ExportError
from fleet_model.signatures import INPUTS, OUTPUTS, signature_names
from fleet_model.torch.model import Part
from fleet_model.types import Tensor, Tensors

OPSET = 18
# Relative (L2). MiniLM measures 1e-6.
TOLERANCE = 1e-3
# Of int8, relative; an output that is smaller than 1 says next to nothing, and is taken for 1.
# MiniLM's first token measures 0.05 to 0.1 on the sentences of the text classifier.
INT8_TOLERANCE = 0.5


def write_onnx(
    part: Part,
    inputs: Mapping[str, TensorSpec],
    samples: Sequence[Tensors],
    file: Path,
    only_output: str = "",
    labels: Sequence[str] = (),
) -> int:
    """Write one part; return its bytes.

    Its tensors are named as those of a stage (fleet_model.signatures); the batch axis is open.

    Args:
        part: in eval mode.
        inputs: shape and dtype of what it takes, without the batch axis.
        samples: of its inputs; the first is traced.
        file: a new one.
        only_output: the output that is called "outputs" alone; "" for none.
        labels: are told in the file, for other programs.

    Raises:
        ExportError: torch cannot write it.
    """
    import onnx
    import torch

    given = signature_names(INPUTS, part.inputs, "")
    answered = signature_names(OUTPUTS, part.outputs, only_output)
    axes = {axis + 1: f"length_{axis}" for axis in part.open_axes}
    content = io.BytesIO()
    rows = tuple(_two(samples, name, inputs[name]) for name in part.inputs)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The exporter by tracing is called legacy. The other one takes eight times as long for
            # MiniLM (27 s and 3.5 s, one thread) and needs onnxscript; both write the same graph.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                part.module,
                rows,
                content,
                input_names=list(given.values()),
                output_names=list(answered.values()),
                dynamic_axes={name: {0: "batch", **axes} for name in given.values()}
                | {name: {0: "batch"} for name in answered.values()},
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:
        raise ExportError(f"{file.name}: torch cannot write it: {_first(error)}") from error
    model = onnx.load_model_from_string(content.getvalue())
    _say_shapes(model, {answered[n]: v.shape for n, v in torch_outputs(part, samples[:1]).items()})
    if labels:
        onnx.helper.set_model_props(model, {LABELS: json.dumps(list(labels))})
    onnx.save_model(model, file)
    return file.stat().st_size


def write_int8(source: Path, file: Path) -> int:
    """Write a float file with the weights of its products in int8; return its bytes.

    What passes between layers is quantized while it runs, so no samples are needed.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # "consider to run pre-processing": nothing of it is needed
    try:
        quantize_dynamic(source, file, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)
    return file.stat().st_size


def torch_outputs(part: Part, samples: Sequence[Tensors]) -> dict[str, Tensor]:
    """Return what a part itself answers, stacked: (samples, *shape)."""
    import torch

    answers: list[Any] = []
    with torch.no_grad():
        for sample in samples:
            found = part.module(*(torch.from_numpy(sample[n][None]) for n in part.inputs))
            answers.append([found] if isinstance(found, torch.Tensor) else list(found))
    return {
        name: np.concatenate([answer[number].numpy() for answer in answers])
        for number, name in enumerate(part.outputs)
    }


def require_same(expected: Tensors, actual: Tensors, name: str) -> float:
    """Return the relative difference of a file to torch; raise ExportError above TOLERANCE."""
    return require_all(expected, actual, name, TOLERANCE)


def require_usable_int8(fp32: Tensors, int8: Tensors, name: str) -> float:
    """Return the relative error of int8; raise ExportError if little of the signal is left."""
    worst = 0.0
    for key, values in fp32.items():
        # Padded by what counts as nothing, outputs that are all small have the length of ones.
        short = max(0.0, values.size - float(np.square(values, dtype=np.float64).sum()))
        floor = np.append(values.ravel(), np.sqrt(short))
        wrong = np.append(int8[key].ravel(), np.sqrt(short))
        worst = max(worst, require_near(floor, wrong, f"{name}: {key}", INT8_TOLERANCE))
    return worst


def _say_shapes(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write the outputs' shapes, which the tracer leaves open, into a graph; the batch is open."""
    for output in model.graph.output:
        axes = output.type.tensor_type.shape.dim
        del axes[1:]
        for size in shapes[output.name][1:]:
            axes.add().dim_value = size


def _two(samples: Sequence[Tensors], name: str, spec: TensorSpec) -> Any:
    """Return two rows: of one, a tracer may take the batch axis for fixed."""
    import torch

    rows = np.stack([samples[number % len(samples)][name] for number in range(2)])
    return torch.from_numpy(rows.astype(spec.dtype, copy=False))


def _first(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:300]
