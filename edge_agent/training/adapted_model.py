"""Train adapters with a framework that knows none: it is given merged tensors.

The code is the same for every framework: robots with LiteRT and with Keras train A and B alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fleet_model.adapters.lora import factor_gradients, merged, row_masks
from fleet_model.adapters.spec import LoraSpec, is_residual
from fleet_model.bundle import TrainerSpec
from fleet_model.errors import TrainingError
from fleet_model.signatures import BASE
from fleet_model.types import Checkpoint, Tensor, Tensors, Weights
from fleet_model.weights import read_weights, require_same_tensors

if TYPE_CHECKING:
    from edge_agent.training.trainer import Differentiable


@dataclass(frozen=True, eq=False, slots=True)
class AdaptedModel:
    """`Differentiable` of A and B, around one of the tensors that they stand for."""

    spec: LoraSpec
    base: Weights  # W0 of each target, float64
    model: "Differentiable"
    residuals: Weights  # of the checkpoint; they count, and are not trained

    def features(self, inputs: Tensors) -> Tensors:
        """As Differentiable says; so are the others."""
        return self.model.features(inputs)

    def gradient(  # noqa: D102
        self, weights: Weights, features: Tensors, targets: Tensors, sample_weight: Tensor
    ) -> tuple[float, Weights]:
        loss, slopes = self.model.gradient(self._merged(weights), features, targets, sample_weight)
        return loss, factor_gradients(self.spec, weights, slopes)

    def outputs(self, weights: Weights, features: Tensors) -> Tensors:  # noqa: D102
        return self.model.outputs(self._merged(weights), features)

    def _merged(self, weights: Weights) -> Weights:
        return merged(self.spec, {**weights, **self.residuals}, self.base)


def adapted(spec: TrainerSpec, directory: Path, model: "Differentiable") -> "Differentiable":
    """Return a model that takes the tensors which travel: itself where none has an adapter.

    Raises:
        TrainingError: the tensors in `directory` to which adapters add are not those of `spec`.
    """
    if spec.adapter is None:
        return model
    base = base_of(spec.adapter, directory)
    wide = {path: tensor.astype(np.float64) for path, tensor in base.items()}
    return AdaptedModel(spec.adapter, wide, model, {})


def base_of(adapter: LoraSpec, directory: Path) -> Weights:
    """Return W0 of each target; TrainingError: those in `directory` are of another adapter."""
    expected = {path: np.empty(s, np.float32) for path, s in adapter.targets.items()}
    base = read_weights(directory / BASE)
    require_same_tensors(expected, base, sender=BASE, error=TrainingError)
    return base


def residuals(spec: TrainerSpec, weights: Weights) -> Mapping[str, Tensor]:
    """Return name -> an array like it, of the residuals that a checkpoint may have and has."""
    shapes = spec.adapter.residuals if spec.adapter else {}
    return {name: np.empty(s, np.float32) for name, s in shapes.items() if name in weights}


def started(model: "Differentiable", weights: Weights) -> "Differentiable":
    """Return a model that takes a checkpoint's residuals into account."""
    fixed = {name: tensor for name, tensor in weights.items() if is_residual(name)}
    if isinstance(model, AdaptedModel):
        return replace(model, residuals=fixed)
    if take := getattr(model, "set_residuals", None):  # of one that has adapters of its own
        take(fixed)
    return model


def dropped(spec: TrainerSpec, seed: int, step: int) -> Mapping[str, Tensor]:
    """Return the masks of one step, see `row_masks`; none where nothing is dropped."""
    return {} if spec.adapter is None else row_masks(spec.adapter, seed, step)


def tensors_of(spec: TrainerSpec, checkpoint: Checkpoint) -> Weights:
    """Return the checkpoint's tensors as trainers take them; raises TrainingError."""
    shapes = {name: tensor.shape for name, tensor in spec.tensors.items()}
    expected = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
    known = {**expected, **residuals(spec, checkpoint.weights)}
    sender = f"the server's checkpoint {checkpoint.version}"
    require_same_tensors(known, checkpoint.weights, sender=sender, error=TrainingError)
    return {name: np.ascontiguousarray(checkpoint.weights[name], np.float32) for name in expected}
