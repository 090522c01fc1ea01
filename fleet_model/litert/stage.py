"""One .tflite file of a model, as LiteRT's Interpreter runs it. Needs LiteRT, never TensorFlow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fleet_model.errors import BundleError, SettingsError
from fleet_model.signatures import SERVE
from fleet_model.types import Tensor, Tensors

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]  # tensor name -> shape without the batch axis


class Stage:
    """One .tflite file with the signature of a stage, batch 1.

    Integer files are given and give float32: the tensors' own scale and zero point are applied.
    """

    def __init__(self, path: Path, num_threads: int = 2) -> None:
        """Load it.

        Raises:
            BundleError: LiteRT cannot run it, or it is no stage.
        """
        self._describe(path, open_interpreter(path, num_threads))

    def _describe(self, path: Path, interpreter: Any) -> None:
        self.name = path.name
        if list(interpreter.get_signature_list()) != [SERVE]:
            raise BundleError(f"{path.name}: expected one signature, {SERVE!r}; it is no stage")
        self._run = interpreter.get_signature_runner(SERVE)
        self._inputs = self._run.get_input_details()
        self._outputs = self._run.get_output_details()
        self.inputs, self.outputs = self._shapes(self._inputs), self._shapes(self._outputs)

    def __call__(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return the outputs by their names in the signature, for one input by such names.

        Raises:
            BundleError: a tensor is not of the shape or kind that the file has. LiteRT itself
                resizes the model, or casts, or answers what is left of the input before.
        """
        given = {name: self._given(name, tensors[name]) for name in self._inputs}
        answer = self._answered(given)
        return {name: _dequantized(answer[name][0], d) for name, d in self._outputs.items()}

    def _answered(self, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        answer: Mapping[str, Tensor] = self._run(**given)
        return answer

    def _given(self, name: str, tensor: Tensor) -> Tensor:
        """Return an input as the file takes it, with a batch axis."""
        details, shape = self._inputs[name], self.inputs[name]
        if tensor.shape != shape:
            raise BundleError(f"{self.name}: {name} has shape {tensor.shape}, expected {shape}")
        wanted = np.dtype(details["dtype"])
        if not details["quantization"][0] and not np.can_cast(tensor.dtype, wanted, "same_kind"):
            raise BundleError(f"{self.name}: {name} has type {tensor.dtype}, expected {wanted}")
        return _quantized(tensor[None], details)

    def _shapes(self, details: Mapping[str, Any]) -> Shapes:
        shapes = {name: tuple(int(n) for n in d["shape"]) for name, d in details.items()}
        if wrong := [name for name, shape in shapes.items() if shape[:1] != (1,)]:
            raise BundleError(f"{self.name}: {wrong[0]} has not the batch 1 of a stage")
        return {name: shape[1:] for name, shape in shapes.items()}


def open_interpreter(path: Path, num_threads: int = 2, *, allocate: bool = True) -> Any:
    """Return a LiteRT interpreter.

    Args:
        path: of a .tflite file.
        num_threads: of every answer.
        allocate: its tensors; without it can be asked what the file has, and cannot run.

    Raises:
        BundleError: the file is not a model that this LiteRT can run.
    """
    interpreter = _interpreter_class()
    try:
        opened = interpreter(model_path=str(path), num_threads=num_threads)
        if allocate:
            opened.allocate_tensors()
    except (ValueError, RuntimeError) as reason:
        # The text of LiteRT may name the whole path; its first line without it says enough.
        text = str(reason).replace(str(path), path.name).partition("\n")[0]
        raise BundleError(f"{path.name}: LiteRT cannot run it: {text}") from None
    return opened


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter  # older boards, Python <= 3.11
        except ImportError:
            raise SettingsError(
                "no LiteRT runtime: install ai-edge-litert (older boards: tflite-runtime)"
            ) from None
    return Interpreter


def _quantized(tensor: Tensor, details: Any) -> Tensor:
    scale, zero_point = details["quantization"]
    if not scale:  # it is not quantized: floating point, or numbers such as those of tokens
        return tensor.astype(details["dtype"], copy=False)
    limits = np.iinfo(details["dtype"])
    steps = tensor / scale
    np.rint(steps, out=steps)
    steps += zero_point
    np.clip(steps, limits.min, limits.max, out=steps)
    return np.asarray(steps.astype(details["dtype"]))


def _dequantized(tensor: Tensor, details: Any) -> Tensor:
    scale, zero_point = details["quantization"]
    if not scale:
        return tensor.astype(np.float32, copy=False) if tensor.dtype.kind == "f" else tensor
    return np.asarray((tensor.astype(np.float32) - zero_point) * np.float32(scale))
