"""Train with TensorFlow on the robot: the scopes whose gradient LiteRT does not have."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_agent.training.feature_cache import FOLDER, FeatureCache
from edge_agent.training.trainer import Learner, fit, threads_from_environment
from fleet_model.bundle import TrainerSpec
from fleet_model.errors import SettingsError, TrainingError
from fleet_model.stages import cut, frozen_variables
from fleet_model.types import Checkpoint, Example, Tensor, TrainConfig, Update, Weights
from fleet_model.weights import read_weights
from fleet_model.workload import Workload, rebuild

if TYPE_CHECKING:
    import keras

FROZEN = "frozen.safetensors"


class KerasTrainer:
    """Train any scope of a workload: "head", "last-block" or "all".

    BatchNorm and dropout run as in inference, so that the update equals LiteRT's.
    """

    def __init__(self, spec: TrainerSpec, directory: Path) -> None:
        """Build the model and load what is frozen.

        Args:
            spec: how robots train.
            directory: holds the verified files of the part "keras".

        Raises:
            SettingsError: TensorFlow is not installed here.
            TrainingError: the files do not fit the model that this workload builds.
        """
        _prepare_tensorflow()
        workload = rebuild(spec.workload)
        model = _model_with_frozen(workload, spec, directory)
        learned = _KerasModel(spec, workload, model)
        # Without a trunk the rows are pictures, which lie on this robot already.
        folder = directory / FOLDER if learned.has_trunk else None
        self._learner = Learner(spec, workload, learned, FeatureCache(folder))

    def fit(
        self, checkpoint: Checkpoint, examples: Iterable[Example], config: TrainConfig
    ) -> Update:
        """Return the update of one round; see `edge_agent.training.trainer.fit`."""
        return fit(self._learner, checkpoint, examples, config)


class _KerasModel:
    """`Differentiable` of a Keras model, cut at the input of its first trainable layer.

    Where all layers train there is no trunk, and what is cached is the input itself.
    """

    def __init__(self, spec: TrainerSpec, workload: Workload, model: "keras.Model") -> None:
        import tensorflow as tf

        by_path = {variable.path: variable for variable in model.variables}
        self._variables = {name: by_path[name] for name in spec.tensors}
        trunk, rest = cut(model, spec.tensors.keys())
        # One image at a time and one static batch: each function is traced once.
        self._trunk = tf.function(lambda x: trunk(x, training=False)) if trunk else None
        self.has_trunk = trunk is not None
        self._rest = tf.function(lambda x: rest(x, training=False))
        self._dtype = rest.inputs[0].dtype
        values = [variable.value for variable in self._variables.values()]

        def loss_and_gradients(features: Any, targets: Any, sample_weight: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(values)
                loss = workload.loss(targets, rest(features, training=False), sample_weight)
            return loss, tape.gradient(loss, values)

        self._loss_and_gradients = tf.function(loss_and_gradients)

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        (tensor,) = inputs.values()
        if self._trunk is None:
            return _as_bytes_if_whole(tensor)
        row: Tensor = self._trunk(tensor[None]).numpy()[0]  # (*feature shape)
        return row

    def gradient(
        self, weights: Weights, features: Tensor, targets: Tensor, sample_weight: Tensor
    ) -> tuple[float, Weights]:
        self._assign(weights)
        features = np.asarray(features, self._dtype)
        loss, gradients = self._loss_and_gradients(features, targets, sample_weight)
        named = zip(self._variables, gradients, strict=True)
        return float(loss), {name: gradient.numpy() for name, gradient in named}

    def outputs(self, weights: Weights, features: Tensor) -> Tensor:
        self._assign(weights)
        logits: Tensor = self._rest(np.asarray(features, self._dtype)).numpy()  # (batch, classes)
        return logits

    def _assign(self, weights: Weights) -> None:
        for name, variable in self._variables.items():
            variable.assign(weights[name])


def _prepare_tensorflow() -> None:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import keras
        import tensorflow as tf
    except ImportError:
        raise SettingsError(
            'trainer = "keras" needs TensorFlow: pip install "fleetlearn[keras]" here, or set '
            'trainer = "litert"'
        ) from None
    if keras.backend.backend() != "tensorflow":
        raise SettingsError(
            f"Keras runs on {keras.backend.backend()!r}; unset KERAS_BACKEND: robots train with "
            "TensorFlow"
        )
    with suppress(RuntimeError):  # too late: this process has computed with TensorFlow before
        tf.config.threading.set_intra_op_parallelism_threads(threads_from_environment())


def _model_with_frozen(workload: Workload, spec: TrainerSpec, directory: Path) -> "keras.Model":
    """Return the model with the server's frozen tensors; the trainable ones come every round."""
    model = workload.build(initial_weights=False)
    expected = frozen_variables(model, spec.tensors.keys())
    frozen = read_weights(directory / FROZEN)
    trainable = {v.path: v for v in model.variables if v.path in spec.tensors}
    missing = [name for name in spec.tensors if name not in trainable]
    if unexplained := sorted(expected.keys() ^ frozen.keys()) + missing:
        raise TrainingError(
            f"{FROZEN}: {len(unexplained)} tensors differ from what the workload "
            f"{spec.workload.name!r} builds here, first {unexplained[0]}; do robot and server run "
            "the same version of fleetlearn?"
        )
    for path, variable in expected.items():
        variable.assign(frozen[path])
    return model


def _as_bytes_if_whole(value: Tensor) -> Tensor:
    """Return pixels that are whole numbers from 0 to 255 as uint8: a quarter of the cache."""
    with np.errstate(invalid="ignore"):
        small = value.astype(np.uint8)
    return small if np.array_equal(small, value) else value
