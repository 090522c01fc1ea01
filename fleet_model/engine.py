"""Run a published model. Needs LiteRT, never TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from fleet_model.bundle import Manifest, TensorSpec, read_bundle
from fleet_model.errors import BundleError, SettingsError
from fleet_model.signatures import FEATURES, INPUTS, OUTPUTS, SERVE, only, tensor_names
from fleet_model.types import Prediction, Tensor, Tensors
from fleet_model.workload import Workload, rebuild, require_same_task

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]  # tensor name -> shape without the batch axis


class Answer(NamedTuple):
    """What a model says of one raw input."""

    outputs: Tensors  # as Task.outputs names them; float32 where the model is quantized
    predictions: Sequence[Prediction]  # see Workload.decode; there may be none


class Engine(Protocol):
    """Answer one input at a time."""

    @property
    def workload(self) -> Workload:
        """What was learned."""
        ...

    @property
    def manifest(self) -> Manifest:
        """What was published."""
        ...

    def answer(self, raw: Any) -> Answer:
        """Return the outputs for one raw input, and what they say; FrameError if it is damaged."""
        ...


class TFLiteEngine:
    """Run a verified bundle, for one input at a time.

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
        require_same_task(self.workload, manifest.described_task, f"version {manifest.version}")
        task = self.workload.task
        files = [bundle / name for name in manifest.engines[precision]]
        self._model = StagedModel(files, task.inputs, task.outputs, num_threads)

    def answer(self, raw: Any) -> Answer:
        """Return the outputs for one raw input, and what they say."""
        encoded = self.workload.encode(raw)
        outputs = self.run(encoded.inputs)
        return Answer(outputs, self.workload.decode(outputs, encoded.context))

    def run(self, inputs: Tensors) -> Tensors:
        """Return the model's outputs alone, for one encoded input; no batch axis on either."""
        return self._model(inputs)

    def warm_up(self) -> None:
        """Run once on zeros: the first run is slower than all others.

        Raises:
            BundleError: an output is not finite.
        """
        specs = self.workload.task.inputs
        zeros = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
        for name, output in self.run(zeros).items():
            if not np.isfinite(output).all():
                raise BundleError(
                    f"version {self.manifest.version}: {name} is not finite for an input of zeros"
                )

    def predict(self, raw: Any) -> Sequence[Prediction]:
        """Return what the model finds in one raw input; see `Workload.decode`."""
        return self.answer(raw).predictions


class StagedModel:
    """Stages in order: each takes by name what it needs of the inputs and of the stages before."""

    def __init__(
        self,
        files: Sequence[Path],
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec] | None,
        num_threads: int = 2,
    ) -> None:
        """Load the stages.

        Args:
            files: in order.
            inputs: what the first stages are given.
            outputs: what the last stage must answer; None of a trunk, whose answer is passed on.
            num_threads: of each interpreter.

        Raises:
            BundleError: a file is no stage, or one does not fit the other.
        """
        self._stages = [Stage(file, num_threads) for file in files]
        self._wiring: list[tuple[Mapping[str, str], Mapping[str, str]]] = []
        known = dict(shapes_of(inputs))
        self._outputs: Sequence[str] = ()
        for number, stage in enumerate(self._stages):
            last = outputs is not None and number == len(self._stages) - 1
            taken = tensor_names(INPUTS, stage.inputs, FEATURES if number else only(inputs))
            given = tensor_names(OUTPUTS, stage.outputs, only(outputs or ()) if last else FEATURES)
            _require_fitting(
                stage.name, "takes", {n: stage.inputs[s] for n, s in taken.items()}, known
            )
            answered = {name: stage.outputs[s] for name, s in given.items()}
            if last:
                _require_fitting(stage.name, "answers", answered, shapes_of(outputs or {}))
            known.update(answered)
            self._wiring.append((taken, given))
            self._outputs = tuple(answered)
        if outputs is not None and set(self._outputs) != outputs.keys():
            raise BundleError(
                f"{self._stages[-1].name}: answers {', '.join(self._outputs)}, expected "
                f"{', '.join(outputs)}"
            )
        self.shapes: Shapes = known  # of all that is named

    def __call__(self, inputs: Tensors) -> dict[str, Tensor]:
        """Return the answer of the last stage for one input; no batch axis on either."""
        values = dict(inputs)
        for stage, (taken, given) in zip(self._stages, self._wiring, strict=True):
            answer = stage({signature: values[name] for name, signature in taken.items()})
            values.update((name, answer[signature]) for name, signature in given.items())
        return {name: values[name] for name in self._outputs}


class Stage:
    """One .tflite file with the signature of a stage, batch 1.

    Integer files are given and give float32: the tensors' own scale and zero point are applied.
    """

    def __init__(self, path: Path, num_threads: int = 2) -> None:
        self.name = path.name
        interpreter = open_interpreter(path, num_threads)
        if list(interpreter.get_signature_list()) != [SERVE]:
            raise BundleError(f"{path.name}: expected one signature, {SERVE!r}; it is no stage")
        self._run = interpreter.get_signature_runner(SERVE)
        self._inputs = self._run.get_input_details()
        self._outputs = self._run.get_output_details()
        self.inputs, self.outputs = self._shapes(self._inputs), self._shapes(self._outputs)

    def __call__(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return the outputs by their names in the signature, for one input by such names."""
        answer = self._run(
            **{name: _quantized(tensors[name][None], d) for name, d in self._inputs.items()}
        )
        return {name: _dequantized(answer[name][0], d) for name, d in self._outputs.items()}

    def _shapes(self, details: Mapping[str, Any]) -> Shapes:
        shapes = {name: tuple(int(n) for n in d["shape"]) for name, d in details.items()}
        if wrong := [name for name, shape in shapes.items() if shape[:1] != (1,)]:
            raise BundleError(f"{self.name}: {wrong[0]} has not the batch 1 of a stage")
        return {name: shape[1:] for name, shape in shapes.items()}


def shapes_of(specs: Mapping[str, TensorSpec]) -> Shapes:
    """Return the shapes alone."""
    return {name: tuple(spec.shape) for name, spec in specs.items()}


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


def _require_fitting(stage: str, verb: str, actual: Shapes, expected: Shapes) -> None:
    """Raise BundleError unless all of `actual` is in `expected`, with its shape."""
    for name, shape in actual.items():
        if expected.get(name) != shape:
            raise BundleError(
                f"{stage}: {verb} {name} {shape}, expected {_written(expected)}; the files of this "
                "bundle do not belong together"
            )


def _written(shapes: Shapes) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def _quantized(tensor: Tensor, details: Any) -> Tensor:
    scale, zero_point = details["quantization"]
    if not scale:  # it is not quantized: floating point, or numbers such as those of tokens
        return tensor.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    steps = np.rint(tensor / scale) + zero_point
    return np.asarray(np.clip(steps, limits.min, limits.max).astype(details["dtype"]))


def _dequantized(tensor: Tensor, details: Any) -> Tensor:
    scale, zero_point = details["quantization"]
    if not scale:
        return tensor.astype(np.float32) if tensor.dtype.kind == "f" else tensor
    return np.asarray((tensor.astype(np.float32) - zero_point) * np.float32(scale))
