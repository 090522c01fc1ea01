"""One .onnx file, run by ONNX Runtime on the CPU. Robots may lack it: the extra `onnxruntime`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fleet_model.errors import BundleError
from fleet_model.foreign import Port
from fleet_model.types import Tensor, Tensors

FATAL = 4  # what it logs by itself goes to stderr; what is wrong it raises, too
LONGEST = 240  # characters of what it says
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


class OnnxFile:
    """A ForeignFile. Sizes that the file leaves open are those of what it is given."""

    def __init__(self, path: Path, num_threads: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Load it; see `open_file`. Weights that lie in other files are not found."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
        options.log_severity_level = FATAL
        self._name = path.name
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001  (its classes have no base of their own)
            raise BundleError(_cannot(path, error)) from None
        self.inputs: Mapping[str, Port] = {
            one.name: self._port(one, shapes.get(one.name)) for one in self._session.get_inputs()
        }
        self.outputs: Mapping[str, Port] = {
            one.name: self._port(one) for one in self._session.get_outputs()
        }

    def __call__(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return all outputs; see ForeignFile."""
        try:
            values = self._session.run(None, dict(tensors))
        except Exception as error:  # noqa: BLE001  (as above)
            raise BundleError(
                f"{self._name}: ONNX Runtime cannot run it: {_first(error)}"
            ) from None
        return {name: np.asarray(one) for name, one in zip(self.outputs, values, strict=True)}

    def _port(self, argument: Any, shape: tuple[int, ...] | None = None) -> Port:
        if argument.type not in DTYPES:
            raise BundleError(
                f"{self._name}: {argument.name} is {argument.type}, expected a tensor of numbers"
            )
        own = tuple(one if isinstance(one, int) else -1 for one in argument.shape)
        return Port(shape or own, DTYPES[argument.type])


def _cannot(path: Path, error: Exception) -> str:
    why = _first(error).replace(str(path), path.name)
    if "external" in why.lower():
        return (
            f"{path.name}: its weights lie in another file; export it as one file "
            f"(onnx.save_model with save_as_external_data=False)"
        )
    return f"{path.name}: ONNX Runtime cannot run it: {why}"


def _first(error: Exception) -> str:
    """Return what it says, without the numbers in front."""
    text = str(error).partition("\n")[0].rpartition("[ONNXRuntimeError] : ")[2]
    return text[:LONGEST]
