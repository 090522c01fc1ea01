"""Examples ready for training, and the batches of named tensors that they are cut into."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fleet_model.types import Target, Tensor, Tensors


class Batch(NamedTuple):
    """Rows of one call; those after the last example are zeros."""

    features: Tensors
    targets: Tensors
    sample_weight: Tensor  # (batch,) float32


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Examples sorted by key; `features` are the cache's own arrays."""

    features: Sequence[Tensors]
    targets: Sequence[Target]
    keys: Sequence[str] = ()  # of the examples

    def weight(self, picked: Iterable[int]) -> float:
        """Return what these examples count together."""
        return math.fsum(self.targets[index].weight for index in picked)

    def batches(self, order: Sequence[int], size: int) -> Iterator[Batch]:
        """Yield batches in `order`; the last one is padded by rows of weight 0."""
        for start in range(0, len(order), size):
            picked = order[start : start + size]
            sample_weight = np.zeros(size, np.float32)
            sample_weight[: len(picked)] = [self.targets[index].weight for index in picked]
            yield Batch(
                stacked([self.features[index] for index in picked], size),
                stacked([self.targets[index].tensors for index in picked], size),
                sample_weight,
            )

    def __len__(self) -> int:
        return len(self.targets)


def stacked(rows: Sequence[Tensors], size: int) -> Tensors:
    """Return the rows with a batch axis of `size`; what is missing is zeros."""
    stacked = {}
    for name, first in rows[0].items():
        dtype = np.result_type(*{row[name].dtype for row in rows})
        batch = np.zeros((size, *first.shape), dtype)
        np.stack([row[name] for row in rows], out=batch[: len(rows)])
        stacked[name] = batch
    return stacked
