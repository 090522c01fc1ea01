"""Train with LiteRT alone: a robot needs no TensorFlow, about a tenth of the memory."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.training.feature_cache import FOLDER, FeatureCache
from edge_agent.training.trainer import Learner, fit, threads_from_environment
from fleet_model.bundle import TrainerSpec
from fleet_model.engine import Stage, open_interpreter
from fleet_model.errors import TrainingError
from fleet_model.types import Checkpoint, Example, Tensor, TrainConfig, Update, Weights
from fleet_model.workload import rebuild

TRUNK, TRAINER_GRAPH = "trunk.tflite", "trainer.tflite"


class LiteRTTrainer:
    """Train the part of a workload whose gradient the server has exported: the head.

    Features come from the frozen trunk, one frame at a time; steps run on cached features.
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
                f"the gradient of {spec.trainable!r} is not exported for LiteRT; set trainer = "
                '"keras" on this robot, or train "head" on the server'
            )
        workload = rebuild(spec.workload)
        threads = num_threads or threads_from_environment()
        model = _HeadOnFeatures(spec, directory, threads)
        self._learner = Learner(spec, workload, model, FeatureCache(directory / FOLDER))

    def fit(
        self, checkpoint: Checkpoint, examples: Iterable[Example], config: TrainConfig
    ) -> Update:
        """Return the update of one round; see `edge_agent.training.trainer.fit`."""
        return fit(self._learner, checkpoint, examples, config)


class _HeadOnFeatures:
    """`Differentiable` of one trunk.tflite and one trainer.tflite."""

    def __init__(self, spec: TrainerSpec, directory: Path, num_threads: int) -> None:
        # Graph inputs are w000, w001, ... in the order of spec.tensors; gradients are g000, ...
        self._names = list(spec.tensors)
        self._trunk = Stage(directory / TRUNK, num_threads)
        graph = open_interpreter(directory / TRAINER_GRAPH, num_threads)
        offered = graph.get_signature_list()
        if missing := {"gradient", "infer"} - offered.keys():
            raise TrainingError(f"{TRAINER_GRAPH} has no signature {sorted(missing)[0]!r}")
        self._gradient = graph.get_signature_runner("gradient")
        self._infer = graph.get_signature_runner("infer")
        _require_inputs(spec, self._gradient.get_input_details())

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        (tensor,) = inputs.values()
        return self._trunk(tensor)  # (*feature shape)

    def gradient(
        self, weights: Weights, features: Tensor, targets: Tensor, sample_weight: Tensor
    ) -> tuple[float, Weights]:
        # Signature outputs come back in string order of their names: go by name, never position.
        out = self._gradient(
            features=np.asarray(features, np.float32),
            targets=targets,
            sample_weight=sample_weight,
            **self._numbered(weights),
        )
        return float(out["loss"]), {n: out[f"g{i:03d}"] for i, n in enumerate(self._names)}

    def outputs(self, weights: Weights, features: Tensor) -> Tensor:
        out = self._infer(features=np.asarray(features, np.float32), **self._numbered(weights))
        logits: Tensor = out["outputs"]  # (batch, classes)
        return logits

    def _numbered(self, weights: Weights) -> Weights:
        return {f"w{i:03d}": weights[name] for i, name in enumerate(self._names)}


def _require_inputs(spec: TrainerSpec, details: Mapping[str, Any]) -> None:
    """Raise TrainingError unless the graph takes the batch and the tensors of the specification."""
    expected: dict[str, tuple[int, ...]] = {
        f"w{i:03d}": tensor.shape for i, tensor in enumerate(spec.tensors.values())
    }
    expected |= {"targets": (spec.batch_size,), "sample_weight": (spec.batch_size,)}
    for name, shape in expected.items():
        actual = tuple(int(n) for n in details[name]["shape"]) if name in details else None
        if actual != shape:
            raise TrainingError(
                f"{TRAINER_GRAPH}: input {name} has shape {actual}, trainer.json says {shape}; "
                "was it exported together with it?"
            )
