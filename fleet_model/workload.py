"""What is learned: one model family with its inputs, outputs, loss."""

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from fleet_model.bundle import WorkloadSpec
from fleet_model.errors import BundleError, SettingsError
from fleet_model.loading import load_plugin
from fleet_model.types import Metrics, Prediction, Tensor, TrainConfig

if TYPE_CHECKING:
    import keras

WORKLOADS = {
    "image-classifier": "fleet_model.workloads.image_classifier:ImageClassifier",
}


class Workload(Protocol):
    """Build the model, encode raw input for it, decode what it answers.

    Only `build` and `loss` need Keras; robots that train with LiteRT or only predict never call
    them. Model outputs are logits.
    """

    name: str
    labels: tuple[str, ...]

    @property
    def training(self) -> TrainConfig:
        """Return how this model trains well: what `init` writes into the server's settings."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the keyword arguments that rebuild this workload; JSON values only."""
        ...

    def build(self, *, initial_weights: bool = True) -> "keras.Model":
        """Return the model; variable paths are unique and the same at every call.

        Args:
            initial_weights: True sets the weights that learning starts from, the same ones at every
                call. False leaves arbitrary ones for a caller that sets all of them, such as a
                robot that was sent the server's: the packages with the weights are then not needed.
        """
        ...

    def trainable(self, model: "keras.Model", scope: str) -> Sequence[str]:
        """Return the variable paths that `scope` trains: "head", "last-block" or "all"."""
        ...

    def encode(self, raw: Any) -> Mapping[str, Tensor]:
        """Turn raw input into named input tensors without the batch axis."""
        ...

    def target(self, label: str) -> int:
        """Turn a label into what the loss takes; raises FrameError for an unknown one."""
        ...

    def loss(self, targets: Any, outputs: Any, sample_weight: Any) -> Any:
        """Return the weighted mean loss (scalar) in keras.ops, for every framework."""
        ...

    def decode(self, output: Tensor) -> Sequence[Prediction]:
        """Turn one row of model output into predictions, best first."""
        ...

    def metrics(self, outputs: Tensor, targets: Tensor) -> Metrics:
        """Return scores of a batch, with at least "accuracy" and "loss", in NumPy."""
        ...


def known_workloads() -> Mapping[str, str]:
    """Return name -> "module:attribute" of ours and of installed packages.

    A name in a manifest comes over the network: it may choose among what the owner of this machine
    has installed (entry points of the group "fleetlearn.workloads"), never name a module itself.
    """
    installed = {point.name: point.value for point in entry_points(group="fleetlearn.workloads")}
    return {**installed, **WORKLOADS}


def rebuild(spec: WorkloadSpec) -> Workload:
    """Return the workload that a manifest or trainer was made for.

    Raises:
        SettingsError: there is no such workload here, or a value of its config is wrong.
        BundleError: its config has a field that this version does not know, or lacks one.
    """
    table = known_workloads()
    if spec.name not in table:
        raise SettingsError(
            f"unknown workload {spec.name!r}; installed here: {', '.join(sorted(table))}"
        )
    kind = load_plugin(table, spec.name)
    try:
        workload: Workload = kind(**spec.config)
    except TypeError as reason:
        raise BundleError(
            f"workload {spec.name!r} cannot be rebuilt: {reason}; do both sides run the same "
            "version of fleetlearn?"
        ) from None
    return workload
