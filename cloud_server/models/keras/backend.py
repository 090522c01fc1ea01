"""Build a workload's Keras model, export it for LiteRT, check what was exported."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cloud_server.models.agreement import label_agreement
from cloud_server.models.backend import (
    NOTE,
    EngineFiles,
    Origin,
    Progress,
    TrainerFiles,
    link,
)
from cloud_server.models.keras.checkpoint_import import import_checkpoint
from cloud_server.models.keras.litert_graphs import float_graph, stage_graphs, trainer_graph
from cloud_server.models.keras.model_files import KINDS, write_model_file
from cloud_server.models.keras.parity_gate import (
    CHECKED,
    Start,
    keras_graph,
    litert_graph,
    litert_outputs,
    require_builtin_operators,
    require_same_outputs,
    require_same_training,
    require_usable_int8,
)
from cloud_server.models.own_weights import Rows
from fleet_model.bundle import TensorSpec, TrainerSpec, WorkloadSpec
from fleet_model.engine import StagedModel
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.keras.model import keras_model, known_keras_models, learned_task
from fleet_model.keras.stages import (
    Learned,
    Part,
    answer_part,
    cut,
    frozen_variables,
    grouped_kernels,
    learned_part,
    uncut,
    whole,
)
from fleet_model.signatures import ANSWER, FROZEN, TRAINER_GRAPH, TRUNK, TRUNK_INT8
from fleet_model.types import Metrics, Target, Tensor, Tensors, Weights
from fleet_model.weights import read_weights, require_same_tensors, write_weights
from fleet_model.workload import Sample, Workload

if TYPE_CHECKING:
    import keras

Engines: TypeAlias = Mapping[str, tuple[str, ...]]  # precision -> stages in order

WITH_TRUNK: Engines = {
    "fp32": (TRUNK, "head.tflite"),
    "int8": (TRUNK_INT8, "head_int8.tflite"),
}
WITHOUT_TRUNK: Engines = {"fp32": ("model.tflite",), "int8": ("model_int8.tflite",)}


class KerasBackend:
    """`Backend` of a workload that has a `KerasModel`."""

    def __init__(self, spec: WorkloadSpec, workload: Workload) -> None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self._spec, self._workload, self._task = spec, workload, workload.task
        self._model = keras_model(spec, workload)
        self._learned = learned_task(self._model, self._task)

    @classmethod
    def has(cls, workload: str) -> bool:
        """Say whether a Keras model of this workload is installed."""
        return workload in known_keras_models()

    def write_trainer(
        self,
        scope: str,
        start: Origin | None,
        batch_size: int,
        samples: Sequence[Sample],
        into: Path,
        progress: Progress,
    ) -> TrainerFiles:
        """Write frozen.safetensors, the trunk's graphs, and the gradient's where LiteRT has it."""
        model = self._model.build(initial_weights=start is None)
        if start is not None:
            progress(
                f"{NOTE}{words}" if (words := self._imported(start, model)) else "weights read"
            )
        tensors = self._model.trainable(model, scope)
        trunk, rest = cut(model, tensors, self._learned)
        frozen = frozen_variables(model, tensors)
        values = {v.path: v.numpy() for v in model.weights if v.path not in frozen}
        weights = {path: values[path] for path in tensors}
        kept = None if start is None else start.frozen
        if kept is None:
            write_weights(into / FROZEN, {path: v.numpy() for path, v in frozen.items()})
        else:
            self._require_trained_classes(frozen, scope)
            link(kept / FROZEN, into / FROZEN)
        progress(f"{len(weights)} trained and {len(frozen)} frozen tensors")

        metrics: dict[str, float] = {}
        parts: dict[str, tuple[str, ...]] = {"keras": (FROZEN,)}
        stages: tuple[str, ...] = ()
        if trunk is not None:
            if kept is None:
                metrics.update(self._write_trunk(trunk, samples, into, progress))
            else:
                for name in (TRUNK, TRUNK_INT8):
                    link(kept / name, into / name)
            stages = (TRUNK,)
        if answer := answer_part(self._task, self._model):
            metrics.update(self._write_answer(answer, into, progress))
        if scope in self._model.litert_scopes:
            metrics.update(self._write_gradient(rest, weights, batch_size, samples, into, progress))
            parts["litert"] = (*stages, TRAINER_GRAPH)
        return TrainerFiles(
            weights=weights, parts=parts, metrics=metrics, grouped=grouped_kernels(model)
        )

    def write_engines(
        self,
        spec: TrainerSpec,
        model: Path,
        weights: Path,
        samples: Sequence[Sample],
        into: Path,
        progress: Progress,
    ) -> EngineFiles:
        """Write the stage after the cut in float32 and int8; the trunk's are linked."""
        built = self._model.build(initial_weights=False)
        _set_weights(built, spec, weights, model / FROZEN)
        progress(f"{len(spec.tensors)} trained tensors")
        trunk, rest = cut(built, list(spec.tensors), self._learned)
        engines = WITHOUT_TRUNK if trunk is None else WITH_TRUNK
        answers = self._learned is not self._task
        inputs: Sequence[Tensors] = [sample.encoded.inputs for sample in samples]
        if trunk is not None:
            frozen = StagedModel([model / TRUNK], self._task.inputs, None)
            inputs = [{**given, **frozen(given)} for given in inputs]
        graphs = stage_graphs(rest, inputs, self._task, first=trunk is None, last=not answers)
        for stages, content in zip(engines.values(), graphs, strict=True):
            for name in stages[:-1]:
                link(model / name, into / name)
            require_builtin_operators(content, stages[-1])
            (into / stages[-1]).write_bytes(content)
            progress(f"{stages[-1]}: {len(content)} bytes")
        if answers:
            link(model / ANSWER, into / ANSWER)
            engines = {precision: (*stages, ANSWER) for precision, stages in engines.items()}
        metrics = self._measured(uncut(built, self._learned), engines, samples, into)
        return EngineFiles(engines=engines, metrics=metrics)

    def write_file(
        self,
        kind: str,
        spec: TrainerSpec,
        model: Path,
        weights: Path,
        samples: Sequence[Sample],
        file: Path,
        progress: Progress,
    ) -> float:
        """Write the model as .keras, or as one graph for LiteRT or ONNX Runtime."""
        if kind not in KINDS:
            raise SettingsError(
                f"no file of kind {kind!r} can be written; choose {', '.join(KINDS)}"
            )
        built = self._model.build(initial_weights=False)
        _set_weights(built, spec, weights, model / FROZEN)
        progress(f"{file.name}")
        inputs = [sample.encoded.inputs for sample in samples]
        part = whole(built, self._task, self._model)
        return write_model_file(kind, part, self._task, inputs, file)

    def _require_trained_classes(self, frozen: Collection[str], scope: str) -> None:
        axes = getattr(self._model, "class_axes", {})
        if not axes or (fixed := sorted(axes.keys() & frozen)):
            what = f"{scope!r} does not train {fixed[0]}" if axes else "its model has no such rows"
            raise SettingsError(f"labels cannot be added or renamed here: {what}")

    def _imported(self, start: Origin, model: "keras.Model") -> str:
        axes = getattr(self._model, "class_axes", {})
        rows = Rows(self._task.classes, axes, start.former)
        return import_checkpoint(start.file, model, rows)

    def _write_trunk(
        self, trunk: Part, samples: Sequence[Sample], into: Path, progress: Progress
    ) -> Metrics:
        inputs = [sample.encoded.inputs for sample in samples]
        graphs = stage_graphs(trunk, inputs, self._task, first=True, last=False)
        contents = dict(zip((TRUNK, TRUNK_INT8), graphs, strict=True))
        for name, content in contents.items():
            require_builtin_operators(content, name)
            (into / name).write_bytes(content)
            progress(f"{name}: {len(content)} bytes")
        fp32, int8 = (
            litert_outputs(StagedModel([into / name], self._task.inputs, None), inputs)
            for name in contents
        )
        return {
            "trunk_error": require_same_outputs(trunk, inputs, fp32, TRUNK),
            "trunk_int8_error": require_usable_int8(fp32, int8, TRUNK_INT8),
        }

    def _write_gradient(
        self,
        rest: Part,
        weights: Weights,
        batch_size: int,
        samples: Sequence[Sample],
        into: Path,
        progress: Progress,
    ) -> Metrics:
        task, tensors, definition = self._task, list(weights), self._model
        steps = learned_part(self._spec, self._workload, Learned(rest, definition), tensors)
        content = trainer_graph(rest, definition, task, tensors, batch_size, steps)
        require_builtin_operators(content, TRAINER_GRAPH)
        (into / TRAINER_GRAPH).write_bytes(content)
        progress(f"{TRAINER_GRAPH}: {len(content)} bytes")
        error = require_same_training(
            litert_graph(
                into / TRAINER_GRAPH, rest, task, tensors, getattr(definition, "maps", ())
            ),
            keras_graph(rest, definition, tensors, steps),
            Start(
                weights=weights,
                features=_taken(rest),
                task=task,
                batch_size=batch_size,
                truths=[s.target for s in samples if s.target] or self._drawn_targets(),
                answer=getattr(definition, "answer", None),
                crops=None if steps.rest is rest else _taken(steps.rest),
            ),
        )
        return {"gradient_error": error}

    def _drawn_targets(self) -> Sequence[Target]:
        """Return targets that a model has of its own for a check; none: random numbers will do."""
        drawn = getattr(self._model, "drawn_targets", None)
        return drawn(np.random.default_rng(0)) if drawn else ()

    def _write_answer(self, answer: Part, into: Path, progress: Progress) -> Metrics:
        """Write the stage that reads answers from maps; it is checked with random ones."""
        content = float_graph(answer, self._task, first=False, last=True)
        require_builtin_operators(content, ANSWER)
        (into / ANSWER).write_bytes(content)
        progress(f"{ANSWER}: {len(content)} bytes")
        maps, rng = self._learned.outputs, np.random.default_rng(0)
        drawn = [
            {name: rng.normal(size=spec.shape).astype(spec.dtype) for name, spec in maps.items()}
            for _ in range(CHECKED)
        ]
        stage = StagedModel([into / ANSWER], maps, self._task.outputs)
        return {
            "answer_error": require_same_outputs(
                answer, drawn, litert_outputs(stage, drawn), ANSWER
            )
        }

    def _measured(
        self, model: Part, engines: Engines, samples: Sequence[Sample], directory: Path
    ) -> dict[str, float]:
        """Pass fp32 through the gate; return how well it matches Keras, and int8 matches fp32.

        Args:
            model: the uncut model, without what reads answers from its maps.
            engines: precision -> stages.
            samples: it is checked with.
            directory: of the stages.
        """
        task, inputs = self._task, [sample.encoded.inputs for sample in samples]

        # Maps, where there are any: where they differ by rounding, boxes may change places.
        maps = {
            precision: litert_outputs(
                StagedModel(
                    [directory / name for name in names if name != ANSWER],
                    task.inputs,
                    self._learned.outputs,
                ),
                inputs,
            )
            for precision, names in engines.items()
        }
        fp32, int8 = maps["fp32"], maps["int8"]
        metrics = {
            "fp32_error": require_same_outputs(model, inputs, fp32, " + ".join(engines["fp32"])),
            "int8_error": max(_distance(fp32[name], int8[name]) for name in fp32),
        }
        if task.answer == "class":
            metrics["int8_agreement"] = label_agreement(self._workload, fp32, int8, samples)
        targets = [sample.target.tensors for sample in samples if sample.target]
        if len(targets) == len(samples):
            truth = {name: np.stack([t[name] for t in targets]) for name in task.targets}
            for precision, learned in maps.items():
                measures = self._workload.measure(self._answers(learned, directory), truth)
                metrics.update((f"{name}_{precision}", value) for name, value in measures.items())
        return metrics

    def _answers(self, learned: dict[str, Tensor], directory: Path) -> Tensors:
        """Return what the answers' stage reads from the maps of all samples, if there is one."""
        if self._learned is self._task:
            return learned
        stage = StagedModel([directory / ANSWER], self._learned.outputs, self._task.outputs)
        rows = len(next(iter(learned.values())))
        maps = [{name: tensor[row] for name, tensor in learned.items()} for row in range(rows)]
        return litert_outputs(stage, maps)


def _taken(part: Part) -> Mapping[str, TensorSpec]:
    """Return what a part takes, without the batch axis."""
    return {
        name: TensorSpec(shape=tuple(tensor.shape[1:]), dtype=tensor.dtype)
        for name, tensor in zip(part.inputs, part.model.inputs, strict=True)
    }


def _set_weights(model: "keras.Model", spec: TrainerSpec, trained: Path, frozen: Path) -> None:
    variables = {v.path: v for v in model.weights}
    values = {path: v.numpy() for path, v in variables.items()}
    moving = {path: values.pop(path) for path in spec.tensors}
    for expected, file in ((moving, trained), (values, frozen)):
        weights = read_weights(file)
        require_same_tensors(expected, weights, sender=file.name, error=CheckpointError)
        for path, value in weights.items():
            variables[path].assign(value)


def _distance(fp32: Tensor, int8: Tensor) -> float:
    """Return the length of the difference against that of `fp32`, also if that is all zeros."""
    return float(np.linalg.norm(int8 - fp32) / max(np.linalg.norm(fp32), np.float32(1e-6)))
