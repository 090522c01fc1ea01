"""One .tflite file of another tool, run by LiteRT's Interpreter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fleet_model.errors import BundleError
from fleet_model.foreign import Port
from fleet_model.litert.stage import open_interpreter
from fleet_model.types import Tensor, Tensors

FLEX = ("Flex", "Select TensorFlow op")


class LiteRTFile:
    """A ForeignFile. Tensors have the names of its signature, else the graph's own."""

    def __init__(self, path: Path, num_threads: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Load it; see `open_file`."""
        self._name = path.name
        self._interpreter = _opened(path, num_threads)
        self._inputs, self._outputs = _tensors(self._interpreter)
        for name, shape in shapes.items():
            if name in self._inputs:
                self._resize(name, shape)
        self._allocate()
        self.inputs: Mapping[str, Port] = {n: _port(d) for n, d in self._inputs.items()}
        self.outputs: Mapping[str, Port] = {n: _port(d) for n, d in self._outputs.items()}

    def __call__(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return all outputs; see ForeignFile."""
        for name, details in self._inputs.items():
            try:
                self._interpreter.set_tensor(details["index"], tensors[name])
            except (KeyError, ValueError) as error:
                raise BundleError(f"{self._name}: input {name}: {error}") from None
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise BundleError(f"{self._name}: LiteRT cannot run it: {_first(error)}") from None
        get = self._interpreter.get_tensor
        return {n: _value(get(d["index"]), _port(d)) for n, d in self._outputs.items()}

    def _resize(self, name: str, shape: tuple[int, ...]) -> None:
        details = self._inputs[name]
        if tuple(details["shape"]) == shape:
            return
        try:
            self._interpreter.resize_tensor_input(details["index"], shape, strict=True)
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"{self._name}: input {name}: {_first(error)}") from None

    def _allocate(self) -> None:
        try:
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BundleError(_cannot(self._name, _first(error))) from None


def _opened(path: Path, num_threads: int) -> Any:
    """Return the interpreter, nothing allocated: only then can inputs get other shapes."""
    try:
        return open_interpreter(path, num_threads, allocate=False)
    except BundleError as error:
        raise BundleError(_cannot(path.name, str(error).partition("cannot run it: ")[2])) from None


def _cannot(name: str, why: str) -> str:
    if any(word in why for word in FLEX):
        return (
            f"{name}: it has operators of TensorFlow (Flex), which no robot has; convert it with "
            "the supported_ops TFLITE_BUILTINS alone"
        )
    return f"{name}: LiteRT cannot run it: {why or 'it is no .tflite file'}"


def _first(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _tensors(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the details of inputs and of outputs by name; of its one signature where it has one.

    Files without a signature, and those of several, are called by the graph's own names.
    """
    keys = list(interpreter.get_signature_list())
    if len(keys) == 1:
        runner = interpreter.get_signature_runner(keys[0])
        return runner.get_input_details(), runner.get_output_details()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    return {one["name"]: one for one in inputs}, {one["name"]: one for one in outputs}


def _port(details: Mapping[str, Any]) -> Port:
    signature = details.get("shape_signature")
    shape = details["shape"] if signature is None or not len(signature) else signature
    scale, zero = details["quantization"]
    return Port(tuple(map(int, shape)), np.dtype(details["dtype"]).name, float(scale), int(zero))


def _value(tensor: Tensor, port: Port) -> Tensor:
    if not port.scale:
        return tensor
    return np.asarray((tensor.astype(np.float32) - port.zero) * np.float32(port.scale))
