"""A module's tensors as they travel: NumPy float32, by path, dense kernels as (in, out).

A path has "/" where torch has ".". The weight of a linear layer is (out, in) in torch; it travels
as `kernel`, turned: adapters, rules and reports take (fan_in, fan_out) whatever framework a fleet
has. All other tensors keep their shape.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fleet_model.types import Tensor

if TYPE_CHECKING:
    import torch
    from torch import nn

KERNEL = "kernel"


class Slot(NamedTuple):
    """One tensor of a module."""

    tensor: "torch.Tensor"
    turned: bool  # it is the transpose of what travels

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape in which it travels."""
        shape = tuple(self.tensor.shape)
        return shape[::-1] if self.turned else shape

    def value(self) -> Tensor:
        """Return a copy of its values, as they travel."""
        return self._travelling(self.tensor.detach())

    def gradient(self) -> Tensor:
        """Return a copy of its gradient; zeros where nothing of it was used."""
        if self.tensor.grad is None:
            return np.zeros(self.shape, np.float32)
        return self._travelling(self.tensor.grad)

    def assign(self, value: Tensor) -> None:
        """Give it values, as they travel."""
        import torch

        given = torch.from_numpy(value if value.flags.writeable else value.copy())
        with torch.no_grad():
            self.tensor.copy_(given.t() if self.turned else given)

    def _travelling(self, tensor: "torch.Tensor") -> Tensor:
        import torch

        tensor = tensor.t() if self.turned else tensor
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        kept = tensor.to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)
        array: Tensor = kept.numpy()
        return array


def slots(model: "nn.Module", path: Callable[[str], str]) -> Mapping[str, Slot]:
    """Return path -> tensor, of everything that a module has and keeps; a tied one once.

    Args:
        model: any.
        path: see TorchModel.path; the weight of a linear layer is named `kernel` already.
    """
    from torch import nn

    linear = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    found, seen = {}, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        turned = name in linear
        found[path(name.removesuffix("weight") + KERNEL if turned else name)] = Slot(tensor, turned)
    return found
