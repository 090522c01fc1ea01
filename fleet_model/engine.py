"""Run a published model. Needs LiteRT, for .onnx files ONNX Runtime, and never TensorFlow.

An engine is made of stages. What opens a file as a stage is the seam for what runs it: LiteRT's
Interpreter, its CompiledModel, or the workload itself where the file is one of another tool.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from fleet_model.bundle import Manifest, TensorSpec, read_bundle
from fleet_model.errors import BundleError
from fleet_model.foreign import require_runtime, runtime_of
from fleet_model.litert.runtime import INTERPRETER, Runtime, chosen_runtime
from fleet_model.litert.stage import Shapes, Stage
from fleet_model.personal.choice import (
    OWN_SHARES,
    OWN_TENSORS,
    SHARED,
    PersonalChoice,
    personal_for,
)
from fleet_model.personal.shares import with_shares
from fleet_model.personal.tensors import OwnTensorsModel
from fleet_model.signatures import ANSWER, FEATURES, INPUTS, OUTPUTS, only, tensor_names
from fleet_model.types import Prediction, Tensor, Tensors
from fleet_model.workload import Workload, rebuild, require_same_task

log = logging.getLogger(__name__)
Model: TypeAlias = Callable[[Tensors], dict[str, Tensor]]  # one encoded input -> its outputs


class EngineStage(Protocol):
    """One file that computes; shapes have no batch axis."""

    name: str  # of the file
    inputs: Shapes  # as signatures.signature_names names them
    outputs: Shapes

    def __call__(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return the outputs for one input; raises BundleError for what does not fit."""
        ...


OpenStage: TypeAlias = Callable[[Path, int], EngineStage]


class Answer(NamedTuple):
    """What a model says of one raw input."""

    outputs: Tensors  # as Task.outputs names them; float32 where the model is quantized
    predictions: Sequence[Prediction]  # see Workload.decode; there may be none
    # What the first of several stages made of the input, as the next takes it; an engine that has
    # no such thing tells none. Inputs that look alike to the model have features that are near.
    features: Tensors = MappingProxyType({})


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
    """Run a verified bundle, for one input at a time. A .tflite file is what it nearly always has.

    One thread at a time: an interpreter keeps its tensors between calls.
    """

    workload: Workload
    manifest: Manifest
    precision: str
    runtime: Runtime  # what answers now
    personal: PersonalChoice | None  # what of this robot's own does; None: never asked for

    def __init__(
        self,
        bundle: Path,
        precision: str = "fp32",
        num_threads: int = 2,
        runtime: Runtime = INTERPRETER,
        personal: PersonalChoice | None = None,
    ) -> None:
        """Verify the files that `precision` needs, then load them.

        Args:
            bundle: its directory.
            precision: "fp32" or "int8".
            num_threads: of an answer.
            runtime: what answers; `open_engine` takes what was measured to be best here.
            personal: what of this robot's own does; `open_engine` takes what is kept beside it.

        Raises:
            BundleError: a file is missing, damaged or does not fit the workload, or `runtime`
                cannot run it here.
        """
        manifest = read_bundle(bundle, names=())
        read_bundle(bundle, names=manifest.needed(precision))
        self.manifest = manifest
        self.workload = rebuild(manifest.workload, bundle)
        require_same_task(self.workload, manifest.described_task, f"version {manifest.version}")
        self._opened = bundle, precision, num_threads
        self.precision, self.personal = precision, personal
        runtime = _suited(manifest, precision, runtime)
        self._model, self.runtime = self._load(opener(runtime)), runtime

    @property
    def runs(self) -> str:
        """Return whether the shared model answers, or with what of this robot's own."""
        return self.personal.runs if self.personal else SHARED

    def reopened(self, runtime: Runtime) -> "TFLiteEngine":
        """Return another engine of the same model; raises BundleError."""
        return TFLiteEngine(*self._opened, runtime, self.personal)

    def answer(self, raw: Any) -> Answer:
        """Return the outputs for one raw input, and what they say."""
        encoded = self.workload.encode(raw)
        whole = getattr(self._model, "whole", None)  # of files that the workload reads itself
        known = whole(encoded.inputs) if whole else self._run(encoded.inputs)
        outputs = {name: known.pop(name) for name in self.workload.task.outputs}
        return Answer(outputs, self.workload.decode(outputs, encoded.context), known)

    def run(self, inputs: Tensors) -> Tensors:
        """Return the model's outputs alone, for one encoded input; no batch axis on either."""
        known = self._run(inputs)
        return {name: known[name] for name in self.workload.task.outputs}

    def _run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Return the outputs and the features."""
        try:
            return self._model(inputs)
        except RuntimeError as error:
            if self.runtime.name != "compiled":
                raise
            why = str(error).partition("\n")[0]
            log.warning("%s fails (%s): the Interpreter goes on", self.runtime.words, why)
            self._model, self.runtime = self._load(Stage), INTERPRETER
            return self._model(inputs)

    def _load(self, open_stage: OpenStage) -> Model:
        """Return what answers encoded inputs; raises BundleError."""
        bundle, precision, num_threads = self._opened
        task = self.workload.task
        files = [bundle / name for name in self.manifest.engines[precision]]
        own = self.personal
        if open_files := getattr(self.workload, "open_files", None):
            together: Model = open_files(files, num_threads)
            return together
        # Of a file that the workload reads itself.
        open_stage = getattr(self.workload, "open_stage", open_stage)
        model: Model
        if own is None or OWN_TENSORS not in own.uses:
            model = StagedModel(
                files, task.inputs, task.outputs, num_threads, open_stage, features=True
            )
        else:
            before = files[: -2 if files[-1].name == ANSWER else -1]
            trunk = StagedModel(before, task.inputs, None, num_threads, open_stage)
            given = self.manifest, self.workload, own.tensors, trunk, trunk.shapes
            model = OwnTensorsModel(bundle, *given, num_threads)
        if own and OWN_SHARES in own.uses:
            return with_shares(model, self.workload, own)
        return model

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


def _suited(manifest: Manifest, precision: str, asked: Runtime) -> Runtime:
    """Return what runs an engine; raises BundleError where its files run by another one alone."""
    name = manifest.engines[precision][-1]
    runtime = runtime_of(name)
    if runtime == INTERPRETER and not manifest.imported:
        return asked
    if asked not in (INTERPRETER, runtime):
        raise BundleError(f"{manifest.imported or name} runs by {runtime.words} alone")
    require_runtime(manifest.engines[precision])
    return runtime


def open_engine(bundle: Path, precision: str = "fp32", num_threads: int = 2) -> TFLiteEngine:
    """Return the engine that was measured to be best for a bundle where the agent installed it.

    With what of this robot's own was better there, too. What cannot be used is logged.

    Raises:
        BundleError: as TFLiteEngine, with the Interpreter and the shared model.
    """
    personal = personal_for(bundle, precision)
    if personal and personal.uses:
        try:
            return _open(bundle, precision, num_threads, personal)
        except BundleError as error:
            log.warning("the shared model answers, without this robot's own part: %s", error)
            personal = None
    return _open(bundle, precision, num_threads, personal)


def _open(
    bundle: Path, precision: str, num_threads: int, personal: PersonalChoice | None
) -> TFLiteEngine:
    runtime = chosen_runtime(bundle, precision)
    if runtime.name == "compiled":
        try:
            engine = TFLiteEngine(bundle, precision, num_threads, runtime, personal)
            engine.warm_up()
        except (BundleError, RuntimeError) as error:
            log.warning("%s %s: the Interpreter answers", runtime.words, error)
        else:
            return engine
    return TFLiteEngine(bundle, precision, num_threads, personal=personal)


def opener(runtime: Runtime) -> OpenStage:
    """Return what opens a file for a runtime."""
    if runtime == INTERPRETER:
        return Stage
    from fleet_model.litert.compiled import CompiledStage

    return partial(CompiledStage, accelerator=runtime.accelerator)


class StagedModel:
    """Stages in order: each takes by name what it needs of the inputs and of the stages before."""

    def __init__(
        self,
        files: Sequence[Path],
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec] | None,
        num_threads: int = 2,
        open_stage: OpenStage = Stage,
        *,
        features: bool = False,
    ) -> None:
        """Load the stages.

        Args:
            files: in order.
            inputs: what the first stages are given.
            outputs: what the last stage must answer; None of a trunk, whose answer is passed on.
            num_threads: of each file.
            open_stage: loads a file.
            features: whether what the first of several stages gives is answered, too.

        Raises:
            BundleError: a file is no stage, or one does not fit the other.
        """
        self._stages = [open_stage(file, num_threads) for file in files]
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
        between = self._wiring[0][1] if features else {}
        self._given = (*between, *(name for name in self._outputs if name not in between))

    def __call__(self, inputs: Tensors) -> dict[str, Tensor]:
        """Return the answer of the last stage for one input; no batch axis on either."""
        values = dict(inputs)
        for stage, (taken, given) in zip(self._stages, self._wiring, strict=True):
            answer = stage({signature: values[name] for name, signature in taken.items()})
            values.update((name, answer[signature]) for name, signature in given.items())
        return {name: values[name] for name in self._given}


def shapes_of(specs: Mapping[str, TensorSpec]) -> Shapes:
    """Return the shapes alone."""
    return {name: tuple(spec.shape) for name, spec in specs.items()}


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
