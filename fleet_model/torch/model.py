"""What a torch backend or trainer needs of a workload: its module, scopes and loss.

Apart from the workload itself, so that a client that only predicts imports none of it.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fleet_model.bundle import WorkloadSpec
from fleet_model.errors import SettingsError
from fleet_model.loading import load_plugin
from fleet_model.types import Tensors
from fleet_model.workload import Workload, installed

if TYPE_CHECKING:
    from torch import nn

TORCH_MODELS = {
    "causal-lm": "fleet_model.workloads.causal_lm.torch_model:CausalLMModel",
    "text-classifier": "fleet_model.workloads.text_classifier.torch_model:TextClassifierModel",
    "vision-language": "fleet_model.workloads.vision_language.torch_model:VisionLanguageModel",
}


class Part(NamedTuple):
    """A module that takes named tensors, in the order of their names here, and gives named ones."""

    module: "nn.Module"  # one tensor for each input; a tuple, or the one tensor
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    # Axes that may have any length, by number without the batch axis: those of a text.
    open_axes: tuple[int, ...] = ()


class Cut(NamedTuple):
    """A model cut where what a scope trains begins."""

    trunk: Part | None  # frozen; gives features, which clients keep from round to round
    rest: Part  # takes features, or inputs where there is no trunk


class TorchModel(Protocol):
    """Built as `TorchModel(workload)`; torch is imported inside the methods.

    Modules are in eval mode, also where they train: dropout would draw other numbers on each
    machine, and what is cached would differ from what is computed. Adapters have a dropout of their
    own (fleet_model/adapters).

    One whose classes may change in a trained fleet also has `class_axes`: path of each tensor with
    one row for every class -> the axis of the rows. One that trainers may cut elsewhere
    than engines also has `trainer_cut(model, trained)`: those features stay on one machine, and may
    have any length in their first axis. One whose files say more than clients need also has
    `shared(name, content)`, which returns the bytes of a file that travel.

    One with `adapts = True` trains adapters alone, beside layers that never change (adapters.py):
    `trainable` returns the kernels that get one, `build` a module with the weights of its `files`,
    `save(module, file)` writes those, and `memory_mb(spec, directory, rows)` tells what a training
    takes. See cloud_server/models/torch/adapting.py.
    """

    @property
    def files(self) -> Collection[str]:
        """Files that say what is built; they travel with the trainer."""
        ...

    def build(self, directory: Path) -> "nn.Module":
        """Return the module with arbitrary weights, for a caller that sets all of them.

        Raises:
            TrainingError: the files are not those of a module that this version knows.
        """
        ...

    def load(self, directory: Path) -> "nn.Module":
        """Return the module with the weights that learning starts from, the same at every call.

        Args:
            directory: the operator's own, with `files` and the weights.

        Raises:
            CheckpointError: a file is missing, damaged or of something else.
        """
        ...

    def path(self, name: str) -> str:
        """Return the path that a tensor travels by, from its name in the module; see tensors.py.

        Adapters and class shares know the layer of the answer by it: see Workload.class_bias.
        """
        ...

    def trainable(self, model: "nn.Module", scope: str) -> Sequence[str]:
        """Return the paths that `scope` trains; SettingsError names the scopes known."""
        ...

    def cut(self, model: "nn.Module", trained: Collection[str]) -> Cut:
        """Return the parts of a module of which the tensors of these paths are trained."""
        ...

    def compact(self, features: Tensors) -> Tensors:
        """Return a batch without what only pads it, or as it is."""
        ...

    def loss(
        self, targets: Mapping[str, Any], outputs: Mapping[str, Any], sample_weight: Any
    ) -> Any:
        """Return the weighted mean loss of a batch (scalar), in torch."""
        ...


def known_torch_models() -> Mapping[str, str]:
    """Return workload -> "module:attribute" of ours and of installed packages.

    Those are entry points of the group "fleetlearn.torch_models" named as their workload is.
    """
    return {**installed("fleetlearn.torch_models"), **TORCH_MODELS}


def torch_model(spec: WorkloadSpec, workload: Workload) -> TorchModel:
    """Return the torch part of a workload; SettingsError: nothing installed here has one."""
    table = known_torch_models()
    if spec.name not in table:
        raise SettingsError(
            f"workload {spec.name!r} has no PyTorch model here; those installed are of: "
            f"{', '.join(sorted(table))}"
        )
    model: TorchModel = load_plugin(table, spec.name)(workload)
    return model
