"""The models that clients see: one for the tensors, one for each raw input, all of one engine.

NAME takes the workload's own tensors and gives the model's. NAME-encoded takes a file's bytes and
NAME-pixels takes pixels; both also give what the workload finds: `label` and `score` where it
answers classes, and `predictions` as JSON.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pydantic_core

from edge_agent.serving.datatypes import BYTES, array_of, datatype_of
from edge_agent.serving.raw_inputs import RawInput, raw_inputs
from edge_agent.serving.request import InferAnswer, InferRequest, Output, RequestError
from edge_agent.serving.tensors import Port, checked
from fleet_model.bundle import TensorSpec
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import FrameError
from fleet_model.litert.runtime import ONNX_RUNTIME
from fleet_model.types import Prediction, Tensor, Tensors
from fleet_model.workload import sure

PLATFORM, ONNX_PLATFORM = "litert", "onnxruntime_onnx"
log = logging.getLogger(__name__)
Row = Mapping[str, Any]  # one row of every output, by name


class ServedModel(NamedTuple):
    """One of the models that a client may name."""

    name: str
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    answer: Callable[[Tensors], Row]  # one row of the inputs, by name; raises FrameError


@dataclass(frozen=True, slots=True)
class Served:
    """All models of one engine."""

    models: Mapping[str, ServedModel]
    version: str
    labels: Sequence[str]
    precision: str
    engine: TFLiteEngine

    @property
    def runtime(self) -> str:
        """Return what of LiteRT answers now."""
        return self.engine.runtime.words

    def model(self, name: str, version: str) -> ServedModel:
        """Return a model; "" is the version of now. Raises RequestError if there is no such one."""
        if name not in self.models:
            known = ", ".join(self.models)
            raise RequestError("unknown", f"there is no model {name!r:.80}; served are {known}")
        if version not in ("", self.version):
            raise RequestError(
                "unknown",
                f"version {version!r:.40} is not served, the robot runs version {self.version}",
            )
        return self.models[name]

    def metadata(self, name: str, version: str) -> dict[str, Any]:
        """Return what REST tells of a model."""
        model = self.model(name, version)
        ranges = {port.name: [port.low, port.high] for port in model.inputs if port.low is not None}
        return {
            "name": name,
            "versions": [self.version],
            "platform": ONNX_PLATFORM if self.engine.runtime == ONNX_RUNTIME else PLATFORM,
            "inputs": [port.as_json() for port in model.inputs],
            "outputs": [port.as_json() for port in model.outputs],
            "parameters": {
                "labels": list(self.labels), "precision": self.precision, "ranges": ranges,
                "runtime": self.runtime, "runs": self.engine.runs,
            },
        }  # fmt: skip

    def infer(self, name: str, version: str, request: InferRequest, max_batch: int) -> InferAnswer:
        """Check a request and answer it; in the engine's one thread.

        Raises:
            RequestError: it is wrong, or the model's answer is no number.
        """
        model = self.model(name, version)
        known = {port.name: port for port in model.outputs}
        if wrong := [one for one in request.outputs if one not in known]:
            raise RequestError(
                "invalid", f"there is no output {wrong[0]!r:.80}; it gives {', '.join(known)}"
            )
        tensors = checked(model.inputs, request.inputs, max_batch)
        rows = [
            _answer_row(model, {n: tensor[row] for n, tensor in tensors.items()}, row)
            for row in range(len(next(iter(tensors.values()))))
        ]
        outputs = [
            Output(port.name, port.datatype, self._stacked(port, rows))
            for port in (known[one] for one in request.outputs or known)
        ]
        return InferAnswer(name, self.version, outputs)

    def _stacked(self, port: Port, rows: Sequence[Row]) -> Tensor:
        values = [row[port.name] for row in rows]
        if port.datatype == BYTES:
            return array_of(values)
        stacked = np.stack(values)
        if stacked.dtype.kind == "f" and not np.isfinite(stacked).all():
            log.warning("version %s: a client's input gives no finite %s", self.version, port.name)
            raise RequestError(
                "failed", f"version {self.version} has no finite {port.name} for this input"
            )
        return stacked


def _answer_row(model: ServedModel, inputs: Tensors, row: int) -> Row:
    try:
        return model.answer(inputs)
    except FrameError as error:
        raise RequestError("invalid", f"row {row}: {error}") from None


def served_models(engine: TFLiteEngine, name: str, precision: str) -> Served:
    """Return what clients see of an engine.

    Raises:
        SettingsError: a tensor of the workload has a type that the protocol lacks.
    """
    task, workload = engine.workload.task, engine.workload
    ranges = getattr(workload, "input_ranges", {})
    inputs = [_port(n, spec, *ranges.get(n, (None, None))) for n, spec in task.inputs.items()]
    outputs = [_port(n, spec) for n, spec in task.outputs.items()]
    models = {name: ServedModel(name, inputs, outputs, engine.run)}
    found = [Port("label", BYTES, (-1,)), Port("score", "FP32", (-1,))]
    said = [*(found if task.answer == "class" else ()), Port("predictions", BYTES, (-1,))]
    # A tensor of the model with one of these names keeps it.
    said = [port for port in said if port.name not in task.outputs]
    for raw in raw_inputs(workload):
        port = Port(raw.name, raw.datatype, (-1, *raw.shape))
        raw_name = f"{name}-{raw.name}"
        models[raw_name] = ServedModel(raw_name, [port], [*outputs, *said], _reader(engine, raw))
    return Served(models, str(engine.manifest.version), task.classes, precision, engine)


def _port(name: str, spec: TensorSpec, low: float | None = None, high: float | None = None) -> Port:
    return Port(name, datatype_of(spec.dtype), (-1, *spec.shape), low, high)


def _reader(engine: TFLiteEngine, raw: RawInput) -> Callable[[Tensors], Row]:
    def answer(inputs: Tensors) -> Row:
        said = engine.answer(raw.read(inputs[raw.name]))
        return {**_told(sure(engine.workload, said.predictions)), **said.outputs}

    return answer


def _told(predictions: Sequence[Prediction]) -> dict[str, Any]:
    everything = [
        {"label": one.label, "score": one.score, "box": one.box, "text": one.text}
        for one in predictions
    ]
    best = predictions[0] if predictions else Prediction(score=0.0)
    return {
        "label": best.label.encode(),
        "score": np.float32(best.score),
        "predictions": pydantic_core.to_json(everything),
    }
