"""What a Keras backend or trainer needs of a workload: its model, scopes and loss.

Apart from the workload itself, so that a robot with LiteRT or `predict` imports none of it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fleet_model.bundle import Task, WorkloadSpec
from fleet_model.errors import SettingsError
from fleet_model.loading import load_plugin
from fleet_model.workload import Workload, installed

if TYPE_CHECKING:
    import keras

KERAS_MODELS = {
    "image-classifier": ("fleet_model.workloads.image_classifier.keras_model:ImageClassifierModel"),
    "object-detector": ("fleet_model.workloads.object_detector.keras_model:ObjectDetectorModel"),
}


class KerasModel(Protocol):
    """Built as `KerasModel(workload)`; Keras is imported inside the methods.

    One whose classes may change in a trained fleet also has `class_axes`: path of each variable
    with one row for every class -> the axis of the rows.

    One whose answers are read from what it learns, as boxes are from maps, has `maps`, the names,
    shapes and dtypes of what the model gives and the loss takes, and `answer(maps)`, which returns
    the tensors of Task.outputs in keras.ops; both with a batch axis. It becomes a stage of its own
    in float32, for int8 would round the boxes to 256 places.

    One whose targets are no random numbers may have `drawn_targets(rng)`, which returns a few that
    exports are checked with.
    """

    @property
    def litert_scopes(self) -> Collection[str]:
        """The scopes whose gradient LiteRT has the operators for: robots need no TensorFlow."""
        ...

    def build(self, *, initial_weights: bool = True) -> "keras.Model":
        """Return the model; variable paths are unique and the same at every call.

        Its inputs are named as Task.inputs, its outputs are a dict by the names of Task.outputs;
        a model with a single output may give the tensor alone.

        Args:
            initial_weights: True sets the weights that learning starts from, the same ones at every
                call. False leaves arbitrary ones for a caller that sets all of them, such as a
                robot that was sent the server's: the packages with the weights are then not needed.
        """
        ...

    def trainable(self, model: "keras.Model", scope: str) -> Sequence[str]:
        """Return the variable paths that `scope` trains; SettingsError names the scopes known."""
        ...

    def loss(
        self, targets: Mapping[str, Any], outputs: Mapping[str, Any], sample_weight: Any
    ) -> Any:
        """Return the weighted mean loss of a batch (scalar) in keras.ops.

        A row of weight 0 changes nothing.
        """
        ...


def learned_task(model: KerasModel, task: Task) -> Task:
    """Return the task of what the model itself gives: its outputs are maps, where it has them."""
    maps = getattr(model, "maps", None)
    return task if maps is None else task.model_copy(update={"outputs": dict(maps)})


def answered(model: KerasModel, outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tensors of Task.outputs for what the model itself gives, in keras.ops."""
    answer = getattr(model, "answer", None)
    return outputs if answer is None else answer(outputs)


def known_keras_models() -> Mapping[str, str]:
    """Return workload -> "module:attribute" of ours and of installed packages.

    Those are entry points of the group "fleetlearn.keras_models" named as their workload is.
    """
    return {**installed("fleetlearn.keras_models"), **KERAS_MODELS}


def keras_model(spec: WorkloadSpec, workload: Workload) -> KerasModel:
    """Return the Keras part of a workload; SettingsError: nothing installed here has one."""
    table = known_keras_models()
    if spec.name not in table:
        raise SettingsError(
            f"workload {spec.name!r} has no Keras model here; those installed are of: "
            f"{', '.join(sorted(table))}"
        )
    model: KerasModel = load_plugin(table, spec.name)(workload)
    return model
