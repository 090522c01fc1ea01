"""Train with Keras and TensorFlow on the robot: the scopes whose gradient LiteRT does not have."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_agent.training.adapted_model import adapted
from edge_agent.training.feature_cache import FeatureCache, cache_of
from edge_agent.training.own_sums import sums_reply
from edge_agent.training.trainer import Learner, evaluate, fit
from edge_agent.training.trainers.hardware import threads_from_environment
from fleet_model.bundle import TRAINER, TrainerSpec
from fleet_model.errors import SettingsError, TrainingError
from fleet_model.keras.model import KerasModel, answered, keras_model, learned_task
from fleet_model.keras.stages import Learned, cut, frozen_variables, learned_part
from fleet_model.signatures import FROZEN
from fleet_model.types import Checkpoint, Example, Tensor, Tensors, TrainConfig, Update, Weights
from fleet_model.weights import read_weights
from fleet_model.workload import Workload, rebuild, require_same_task

if TYPE_CHECKING:
    import keras


class KerasTrainer:
    """Train any scope of a workload that has a Keras model.

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
        require_same_task(workload, spec.task, TRAINER)
        definition = keras_model(spec.workload, workload)
        model = _model_with_frozen(definition, spec, directory)
        learned = _CutModel(spec, workload, definition, model)
        # Without a trunk the rows are inputs, which lie on this robot already.
        cache = FeatureCache()
        if learned.has_trunk:
            cache = cache_of(spec, workload, directory, "keras")
        self._learner = Learner(spec, workload, adapted(spec, directory, learned), cache)

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


class _CutModel:
    """`Differentiable` of a Keras model, cut at the input of its first trainable layers.

    Where all layers train there is no trunk, and what is cached is the inputs themselves.
    """

    def __init__(
        self, spec: TrainerSpec, workload: Workload, definition: KerasModel, model: "keras.Model"
    ) -> None:
        import tensorflow as tf

        names = list(spec.variables)
        trunk, rest = cut(model, names, learned_task(definition, workload.task))
        steps = learned_part(spec.workload, workload, Learned(rest, definition), names)
        self._variables, moved = (
            {v.path: v for v in one.model.variables if v.path in spec.variables}
            for one in (rest, steps.rest)
        )
        self._moved = {name: moved[name] for name in names}
        # One input at a time and one static batch: each function is traced once.
        self._trunk = tf.function(trunk.__call__) if trunk else None
        self._trunk_inputs = trunk.inputs if trunk else ()
        self.has_trunk = trunk is not None
        self._rest = tf.function(lambda features: answered(definition, rest(features)))
        taken = zip(rest.inputs, rest.model.inputs, strict=True)
        self._dtypes = {name: np.dtype(tensor.dtype) for name, tensor in taken}
        values = [variable.value for variable in self._moved.values()]

        def loss_and_gradients(features: Any, targets: Any, sample_weight: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(values)
                loss = steps.definition.loss(targets, steps.rest(features), sample_weight)
            return loss, tape.gradient(loss, values)

        self._loss_and_gradients = tf.function(loss_and_gradients)

    def features(self, inputs: Tensors) -> Tensors:
        computed: dict[str, Tensor] = {}
        if self._trunk is not None:
            answer = self._trunk({name: inputs[name][None] for name in self._trunk_inputs})
            computed = {name: rows.numpy()[0] for name, rows in answer.items()}
        passing = (name for name in self._dtypes if name not in computed)
        return computed | {name: _as_bytes_if_whole(inputs[name]) for name in passing}

    def gradient(
        self, weights: Weights, features: Tensors, targets: Tensors, sample_weight: Tensor
    ) -> tuple[float, Weights]:
        self._assign(self._moved, weights)
        given = self._given(features)
        loss, gradients = self._loss_and_gradients(given, dict(targets), sample_weight)
        named = zip(self._moved, gradients, strict=True)
        return float(loss), {name: gradient.numpy() for name, gradient in named}

    def outputs(self, weights: Weights, features: Tensors) -> Tensors:
        self._assign(self._variables, weights)
        return {name: rows.numpy() for name, rows in self._rest(self._given(features)).items()}

    def _given(self, features: Tensors) -> dict[str, Tensor]:
        return {name: np.asarray(features[name], dtype) for name, dtype in self._dtypes.items()}

    @staticmethod
    def _assign(variables: "Mapping[str, keras.Variable]", weights: Weights) -> None:
        for name, variable in variables.items():
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


def _model_with_frozen(definition: KerasModel, spec: TrainerSpec, directory: Path) -> "keras.Model":
    """Return the model with the server's frozen tensors; the trainable ones come every round."""
    model = definition.build(initial_weights=False)
    expected = frozen_variables(model, spec.variables.keys())
    frozen = read_weights(directory / FROZEN)
    trainable = {v.path: v for v in model.variables if v.path in spec.variables}
    missing = [name for name in spec.variables if name not in trainable]
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
    """Return floats that are whole numbers from 0 to 255 as uint8: a quarter of the cache."""
    if value.dtype.kind != "f":
        return value
    with np.errstate(invalid="ignore"):
        small = value.astype(np.uint8)
    return small if np.array_equal(small, value) else value
