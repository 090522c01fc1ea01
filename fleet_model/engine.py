"""Run a published model. Needs LiteRT, never TensorFlow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fleet_model.bundle import Manifest, read_bundle
from fleet_model.errors import BundleError, SettingsError
from fleet_model.types import Prediction, Tensor
from fleet_model.workload import Workload, rebuild


class Engine(Protocol):
    """Answer one input at a time."""

    def predict(self, raw: Any) -> Sequence[Prediction]:
        """Return what the model finds in one raw input, best first."""
        ...


class TFLiteEngine:
    """Run the stages of a verified bundle, one after the other, for one input at a time.

    One thread at a time: an interpreter keeps its tensors between calls.
    """

    workload: Workload
    manifest: Manifest

    def __init__(self, bundle: Path, precision: str = "fp32", num_threads: int = 2) -> None:
        """Verify the files that `precision` needs, then load them.

        Raises:
            BundleError: a file is missing, damaged or does not fit the workload.
        """
        manifest = read_bundle(bundle, names=())
        read_bundle(bundle, names=manifest.needed(precision))
        self.manifest = manifest
        self.workload = rebuild(manifest.workload)
        files = manifest.engines[precision]
        self._stages = [Stage(bundle / name, num_threads) for name in files]
        self._require_fitting_stages()

    def outputs(self, raw: Any) -> Tensor:
        """Return the logits of one raw input: (labels,) float32."""
        (tensor,) = self.workload.encode(raw).values()
        return run_stages(self._stages, tensor)

    def predict(self, raw: Any) -> Sequence[Prediction]:
        """Return what the model finds in one raw input, best first."""
        return self.workload.decode(self.outputs(raw))

    def _require_fitting_stages(self) -> None:
        shapes = [tuple(spec.shape) for spec in self.manifest.inputs.values()]
        for stage in self._stages:
            if shapes != [stage.input_shape]:
                raise BundleError(
                    f"{stage.name}: takes {stage.input_shape}, but is given {shapes}; the files of "
                    "this bundle do not belong together"
                )
            shapes = [stage.output_shape]
        if shapes != [(len(self.workload.labels),)]:
            raise BundleError(
                f"{self._stages[-1].name}: answers {shapes[0]}, expected one number for each of "
                f"{len(self.workload.labels)} labels"
            )


class Stage:
    """One .tflite file with one input and one output of batch 1.

    Integer files are given and give float32: the tensors' own scale and zero point are applied.
    """

    def __init__(self, path: Path, num_threads: int = 2) -> None:
        self.name = path.name
        self._interpreter = open_interpreter(path, num_threads)
        self._input, self._output = _only_tensors(self._interpreter, path.name)
        self.input_shape = tuple(int(n) for n in self._input["shape"][1:])
        self.output_shape = tuple(int(n) for n in self._output["shape"][1:])

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return float32 of `output_shape` for one input of `input_shape`."""
        self._interpreter.set_tensor(self._input["index"], _quantized(tensor[None], self._input))
        self._interpreter.invoke()
        output = self._interpreter.get_tensor(self._output["index"])[0]
        return _dequantized(output, self._output)


def run_stages(stages: Sequence[Stage], tensor: Tensor) -> Tensor:
    """Pass one input through all stages."""
    for stage in stages:
        tensor = stage(tensor)
    return tensor


def open_interpreter(path: Path, num_threads: int = 2) -> Any:
    """Return a LiteRT interpreter with its tensors allocated.

    Raises:
        BundleError: the file is not a model that this LiteRT can run.
    """
    interpreter = _interpreter_class()
    try:
        opened = interpreter(model_path=str(path), num_threads=num_threads)
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


def _only_tensors(interpreter: Any, name: str) -> tuple[Any, Any]:
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0]["shape"][0] != 1:
        raise BundleError(f"{name}: expected one input and one output of batch 1")
    return inputs[0], outputs[0]


def _quantized(tensor: Tensor, details: Any) -> Tensor:
    if np.issubdtype(details["dtype"], np.floating):
        return tensor.astype(details["dtype"])
    scale, zero_point = details["quantization"]
    limits = np.iinfo(details["dtype"])
    steps = np.rint(tensor / scale) + zero_point
    return np.asarray(np.clip(steps, limits.min, limits.max).astype(details["dtype"]))


def _dequantized(tensor: Tensor, details: Any) -> Tensor:
    if np.issubdtype(details["dtype"], np.floating):
        return tensor.astype(np.float32)
    scale, zero_point = details["quantization"]
    return np.asarray((tensor.astype(np.float32) - zero_point) * np.float32(scale))
