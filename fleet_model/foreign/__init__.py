"""Model files that are run as they are: the second kind of engine file.

A .tflite file of this fleet is a stage with a signature of ours (litert/stage.py). One of another
tool has whatever tensors its makers gave it, and an .onnx file has no signature; a workload reads
them (`Workload.open_stage`).

litert_file.py   .tflite, by LiteRT
onnx_file.py     .onnx, by ONNX Runtime: an extra that a robot may lack
"""

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from fleet_model.errors import BundleError
from fleet_model.litert.runtime import INTERPRETER, ONNX_RUNTIME, PYTORCH, Runtime
from fleet_model.loading import load_plugin
from fleet_model.types import Tensor, Tensors

FILES = {
    ".tflite": "fleet_model.foreign.litert_file:LiteRTFile",
    ".onnx": "fleet_model.foreign.onnx_file:OnnxFile",
}
RUNTIMES = {".tflite": INTERPRETER, ".onnx": ONNX_RUNTIME, ".safetensors": PYTORCH}
# What runs a file -> the package that it needs, and the extra that brings it.
_NEEDED = {ONNX_RUNTIME: ("onnxruntime", "onnxruntime"), PYTORCH: ("torch", "torch")}
_ABOUT = ".json"  # of a file that says something of those beside it


class Port(NamedTuple):
    """A tensor that a file takes or gives."""

    shape: tuple[int, ...]  # with the batch axis; -1: it depends on what is given
    dtype: str  # of NumPy
    scale: float = 0.0  # of a quantized tensor: value = (number - zero) * scale; 0: it is none
    zero: int = 0


class ForeignFile(Protocol):
    """One model file; `open_file` opens it.

    Built as `kind(path, num_threads, shapes)`: `shapes` are those of inputs whose own depend on
    what is given.
    """

    @property
    def inputs(self) -> Mapping[str, Port]:
        """What it takes, by the file's own names."""
        ...

    @property
    def outputs(self) -> Mapping[str, Port]:
        """What it gives, in the file's order."""
        ...

    def __call__(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return all outputs by name, dequantized, with the batch axis.

        Raises:
            BundleError: a tensor does not fit, or the runtime fails.
        """
        ...


def open_file(
    path: Path, num_threads: int = 2, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> ForeignFile:
    """Return a file, loaded.

    Args:
        path: its suffix says what runs it.
        num_threads: of an answer.
        shapes: of inputs that take several, by name, with the batch axis.

    Raises:
        BundleError: it is no such file, what runs it is not installed here, or it cannot run it.
    """
    require_runtime([path.name])
    opened: ForeignFile = load_plugin(FILES, path.suffix)(path, num_threads, dict(shapes or {}))
    return opened


def runtime_of(name: str) -> Runtime:
    """Return what runs a file of this name; raises BundleError for one that nothing runs."""
    suffix = Path(name).suffix
    if suffix not in RUNTIMES:
        raise BundleError(f"{name}: expected a file {' or '.join(FILES)}")
    return RUNTIMES[suffix]


def require_runtime(names: Iterable[str]) -> None:
    """Raise BundleError unless what runs files of these names is installed here; loads nothing."""
    for name in names:
        if name.endswith(_ABOUT):
            continue
        package, extra = _NEEDED.get(runtime := runtime_of(name), ("", ""))
        if package and importlib.util.find_spec(package) is None:
            raise BundleError(
                f"{name} needs {runtime.words}, which is not installed here: "
                f"pip install 'fleetlearn[{extra}]'"
            )
