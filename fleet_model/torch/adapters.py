"""Low-rank adapters beside a torch model's linear layers, which stay as they are.

The same function as lora.py's, y = x W0 + s x (A B + R), without W: so W0 may be in bfloat16, and
no step costs memory or time of the size of W0. A, B and R are float32.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fleet_model.adapters.spec import RESIDUAL, A, B, LoraSpec
from fleet_model.errors import TrainingError
from fleet_model.torch.tensors import KERNEL, Slot
from fleet_model.types import Weights

if TYPE_CHECKING:
    import torch
    from torch import nn


class LayerAdapters:
    """A and B of each adapted layer of a module, which answers with them from now on."""

    def __init__(self, model: "nn.Module", path: Callable[[str], str], spec: LoraSpec) -> None:
        """Begin with zeros, which change nothing.

        Args:
            model: where it is to stay: A and B lie on the device of their layers.
            path: see TorchModel.path.
            spec: of the adapters.

        Raises:
            TrainingError: a layer is not there, or has another shape.
        """
        import torch

        layers = _linear(model, path)
        self._parts: dict[str, dict[str, torch.Tensor]] = {}
        self.slots: dict[str, Slot] = {}
        for target, shape in spec.targets.items():
            layer = layers.get(target)
            found = None if layer is None else (layer.in_features, layer.out_features)
            if layer is None or found != shape:
                raise TrainingError(
                    f"{target} of shape {shape} is to have an adapter; the model here has "
                    f"{found or 'no such layer'}: do client and server run the same version of "
                    "fleetlearn?"
                )
            at = layer.weight.device
            factors = {
                A: torch.zeros(shape[0], spec.rank, device=at, requires_grad=True),
                B: torch.zeros(spec.rank, shape[1], device=at, requires_grad=True),
            }
            self.slots |= {
                target + end: Slot(tensor, turned=False) for end, tensor in factors.items()
            }
            self._parts[target] = factors
            layer.register_forward_hook(_adding(factors, spec.scale))

    def set_residuals(self, weights: Weights) -> None:
        """Take what a rule has added to the products; what is not in `weights` is nothing."""
        import torch

        for target, parts in self._parts.items():
            given = weights.get(target + RESIDUAL)
            if given is None:
                parts.pop(RESIDUAL, None)
            else:
                parts[RESIDUAL] = torch.from_numpy(given.copy()).to(parts[A].device)


def can_adapt(model: "nn.Module", path: Callable[[str], str], spec: LoraSpec) -> bool:
    """Tell whether all that is adapted are linear layers: others take merged kernels."""
    layers = _linear(model, path)
    return all(
        target in layers and (layers[target].in_features, layers[target].out_features) == shape
        for target, shape in spec.targets.items()
    )


def _linear(model: "nn.Module", path: Callable[[str], str]) -> "Mapping[str, nn.Linear]":
    """Return the linear layers by the paths of their kernels."""
    from torch import nn

    return {
        path(f"{name}.{KERNEL}"): layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
    }


def _adding(parts: Mapping[str, "torch.Tensor"], scale: float) -> Callable[..., Any]:
    """Return a hook that adds s x (A B + R) to what a layer answers."""

    def hook(layer: Any, given: Any, answer: Any) -> Any:
        del layer
        x = given[0].to(parts[A].dtype)  # (..., fan_in)
        change = (x @ parts[A]) @ parts[B]
        if (residual := parts.get(RESIDUAL)) is not None:
            change = change + x @ residual
        return answer + (scale * change).to(answer.dtype)

    return hook
