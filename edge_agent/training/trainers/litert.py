"""Train with LiteRT alone: a robot needs no TensorFlow, about a tenth of the memory."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.training.adapted_model import adapted
from edge_agent.training.feature_cache import FeatureCache, cache_of
from edge_agent.training.own_sums import sums_reply
from edge_agent.training.rows import Rows
from edge_agent.training.trainer import Learner, evaluate, fit
from edge_agent.training.trainers.hardware import threads_from_environment
from fleet_model.bundle import TRAINER, TrainerSpec
from fleet_model.engine import StagedModel
from fleet_model.errors import TrainingError
from fleet_model.litert.stage import open_interpreter
from fleet_model.signatures import (
    FEATURES,
    GRADIENT,
    INFER,
    LOSS,
    OUTPUTS,
    SAMPLE_WEIGHT,
    TARGETS,
    TRAINER_GRAPH,
    TRUNK,
    gradient_names,
    only,
    signature_names,
    tensor_names,
    weight_names,
)
from fleet_model.types import (
    Checkpoint,
    Example,
    Target,
    Tensor,
    Tensors,
    TrainConfig,
    Update,
    Weights,
)
from fleet_model.workload import Workload, rebuild, require_same_task


class LiteRTTrainer:
    """Train the part of a workload whose gradient the server has exported: mostly the head.

    Features come from the frozen trunk, one input at a time; steps run on cached features.
    """

    def __init__(self, spec: TrainerSpec, directory: Path, num_threads: int | None = None) -> None:
        """Load both graphs.

        Args:
            spec: how robots train.
            directory: holds the verified files of the part "litert".
            num_threads: None takes OMP_NUM_THREADS, else 2.

        Raises:
            TrainingError: the gradient of this trainable scope was not exported, or the files do
                not fit the specification.
        """
        if "litert" not in spec.parts:
            raise TrainingError(
                f"the gradient of {spec.trainable!r} is not exported for LiteRT; set trainer to "
                f"one of {', '.join(sorted(spec.parts))} on this robot, or train less on the server"
            )
        workload = rebuild(spec.workload)
        require_same_task(workload, spec.task, TRAINER)
        threads = num_threads or threads_from_environment()
        model = _HeadOnFeatures(spec, workload, directory, threads)
        # Without a trunk the rows are inputs, which lie on this robot already.
        cache = FeatureCache()
        if model.has_trunk:
            cache = cache_of(spec, workload, directory, "litert")
        self._learner = Learner(spec, workload, adapted(spec, directory, model), cache)

    def fit(
        self,
        checkpoint: Checkpoint,
        examples: Iterable[Example],
        config: TrainConfig,
        correction: Weights | None = None,
    ) -> Update:
        """Return the update of one round; see `edge_agent.training.trainer.fit`."""
        return fit(self._learner, checkpoint, examples, config, correction)

    def evaluate(self, checkpoint: Checkpoint, examples: Iterable[Example]) -> Update:
        """Return the measures of a checkpoint; see `edge_agent.training.trainer.evaluate`."""
        return evaluate(self._learner, checkpoint, examples)

    def sums(
        self, checkpoint: Checkpoint, examples: Iterable[Example], config: TrainConfig, sent: Path
    ) -> Update:
        """Return sums of features; see `edge_agent.training.own_sums.sums_reply`."""
        return sums_reply(self._learner, checkpoint, examples, config, sent)


class _HeadOnFeatures:
    """`Differentiable` of one trainer.tflite, and one trunk.tflite unless everything is trained."""

    def __init__(
        self, spec: TrainerSpec, workload: Workload, directory: Path, num_threads: int
    ) -> None:
        task = workload.task
        graph = open_interpreter(directory / TRAINER_GRAPH, num_threads)
        offered = graph.get_signature_list()
        if missing := {GRADIENT, INFER} - offered.keys():
            raise TrainingError(f"{TRAINER_GRAPH} has no signature {sorted(missing)[0]!r}")
        self._gradient = graph.get_signature_runner(GRADIENT)
        self._infer = graph.get_signature_runner(INFER)
        self._details = self._gradient.get_input_details()
        self._weights, self._slopes = (
            weight_names(list(spec.variables)),
            gradient_names(list(spec.variables)),
        )
        self._features = tensor_names(FEATURES, self._details, FEATURES)
        self._targets = signature_names(TARGETS, task.targets, only(task.targets))
        self._outputs = signature_names(OUTPUTS, task.outputs, only(task.outputs))
        stages = [directory / name for name in spec.parts["litert"] if name == TRUNK]
        self.has_trunk = bool(stages)
        self._trunk = StagedModel(stages, task.inputs, None, num_threads)
        self._require_inputs(spec, workload)

    def features(self, inputs: Tensors) -> Tensors:
        known = {**inputs, **self._trunk(inputs)}
        return {name: known[name] for name in self._features}

    def gradient(
        self, weights: Weights, features: Tensors, targets: Tensors, sample_weight: Tensor
    ) -> tuple[float, Weights]:
        # Signature outputs come back in string order of their names: go by name, never position.
        out = self._gradient(
            **self._given(weights, features),
            **{signature: targets[name] for name, signature in self._targets.items()},
            **{SAMPLE_WEIGHT: sample_weight},
        )
        return float(out[LOSS]), {path: out[name] for path, name in self._slopes.items()}

    def outputs(self, weights: Weights, features: Tensors) -> Tensors:
        out = self._infer(**self._given(weights, features))
        return {name: out[signature] for name, signature in self._outputs.items()}

    def _given(self, weights: Weights, features: Tensors) -> Mapping[str, Any]:
        rows = {
            signature: np.asarray(features[name], self._details[signature]["dtype"])
            for name, signature in self._features.items()
        }
        return rows | {name: weights[path] for path, name in self._weights.items()}

    def _require_inputs(self, spec: TrainerSpec, workload: Workload) -> None:
        """Raise TrainingError unless the graph takes what specification and workload give."""
        size, targets = (spec.batch_size,), workload.task.targets
        shapes = _shapes_of_steps(workload, self._trunk.shapes)
        expected = {self._weights[path]: tensor.shape for path, tensor in spec.variables.items()}
        expected |= {self._targets[n]: (*size, *tensor.shape) for n, tensor in targets.items()}
        expected |= {
            signature: (*size, *shapes[name]) if name in shapes else ()
            for name, signature in self._features.items()
        }
        expected[SAMPLE_WEIGHT] = size
        actual = {n: tuple(int(x) for x in d["shape"]) for n, d in self._details.items()}
        for name in sorted(expected.keys() | actual.keys()):
            if actual.get(name) != expected.get(name):
                raise TrainingError(
                    f"{TRAINER_GRAPH}: input {name} has shape {actual.get(name)}, its workload and "
                    f"trainer.json say {expected.get(name)}; was it exported together with them?"
                )


def _shapes_of_steps(
    workload: Workload, shapes: Mapping[str, tuple[int, ...]]
) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of what a step takes of features: of crops, where it learns from them."""
    target = {name: np.zeros(t.shape, t.dtype) for name, t in workload.task.targets.items()}
    row = Rows(
        [{n: np.zeros(shape, np.bool_) for n, shape in shapes.items()}], [Target(tensors=target)]
    )
    batch = next(row.cropped(workload, 0).batches([0], 1))
    return {name: rows.shape[1:] for name, rows in batch.features.items()}
