"""Which tensors have a low-rank adapter, how large it is, and what its factors are called.

Of a tensor W that has an adapter, A and B travel and are trained in its place (see lora.py). W as
it was before the first round lies in the trainer's files, which a robot fetches once.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from fleet_model.types import Weights

A, B = ".lora_a", ".lora_b"  # behind the path of W: (fan_in, rank) and (rank, fan_out)
# Behind the path of W: (fan_in, fan_out), what a rule has added to A B. Robots get it with the
# checkpoint, and do not train it.
RESIDUAL = ".lora_residual"

_T = TypeVar("_T")


class LoraSpec(BaseModel):
    """The adapters of a trainer (LoRA, Hu et al. 2021, arXiv:2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: Literal["lora"] = "lora"
    rank: int = Field(ge=1)
    alpha: float = Field(gt=0, allow_inf_nan=False)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    patterns: tuple[str, ...] = ("*",)  # that chose the targets, for when labels change
    targets: dict[str, tuple[int, ...]] = Field(min_length=1)  # path of W -> its shape

    @property
    def scale(self) -> float:
        """What the product of A and B counts: alpha / rank."""
        return self.alpha / self.rank

    @property
    def residuals(self) -> dict[str, tuple[int, int]]:
        """The shape of every residual, by name; a checkpoint may have none of them."""
        return {p + RESIDUAL: (math.prod(s[:-1]), s[-1]) for p, s in self.targets.items()}

    @property
    def factors(self) -> dict[str, tuple[int, int]]:
        """The shape of every A and B, by name."""
        shapes = {}
        for path, shape in self.targets.items():
            shapes[path + A] = (math.prod(shape[:-1]), self.rank)
            shapes[path + B] = (self.rank, shape[-1])
        return shapes

    def replaced(self, tensors: Mapping[str, _T], target: Mapping[str, _T]) -> dict[str, _T]:
        """Return `tensors` with an entry of `target` in the place of each A and B, in order."""
        found: dict[str, _T] = {}
        for name, value in tensors.items():
            path = name.removesuffix(A)
            if path in self.targets:
                found[path] = target[path]
            elif name.removesuffix(B) not in self.targets:
                found[name] = value
        return found


def is_residual(name: str) -> bool:
    """Tell whether only a rule changes a tensor: robots send nothing under its name."""
    return name.endswith(RESIDUAL)


def sent_back(weights: Weights) -> Weights:
    """Return the tensors of a checkpoint that an update has, too."""
    return {name: tensor for name, tensor in weights.items() if not is_residual(name)}


def residual_shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the residuals that a checkpoint with these tensors may have."""
    return {
        path + RESIDUAL: (weights[path + A].shape[0], weights[path + B].shape[1])
        for path in adapted_in(weights)
    }


def adapted_in(names: Iterable[str]) -> list[str]:
    """Return the paths that have an A and a B among the names of a checkpoint's tensors."""
    known = set(names)
    paths = sorted(name.removesuffix(A) for name in known if name.endswith(A))
    return [path for path in paths if path + B in known]
