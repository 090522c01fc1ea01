"""Examples ready for training, and the batches of named tensors that they are cut into."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fleet_model.types import PseudoLabel, Target, Tensor, Tensors


class Batch(NamedTuple):
    """Rows of one call; those after the last example are zeros."""

    features: Tensors
    targets: Tensors
    sample_weight: Tensor  # (batch,) float32


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Examples sorted by key; `features` are the cache's own rows, large ones left in its file."""

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

    def answers(self, size: int, outputs: Callable[[Tensors], Tensors]) -> Tensors:
        """Return the outputs for at least one row, (rows, *output shape) each, in their order.

        Args:
            size: rows of one call.
            outputs: gives those of one batch of features.
        """
        count = len(self)
        answers = [outputs(batch.features) for batch in self.batches(range(count), size)]
        return {name: np.concatenate([a[name] for a in answers])[:count] for name in answers[0]}

    def __len__(self) -> int:
        return len(self.targets)


class EncodedRows(NamedTuple):
    """A robot's examples as a model takes them."""

    training: Rows
    held_out: Rows
    unknown: Rows  # without a truth; their targets hold no tensors, only what one would weigh
    rule: PseudoLabel | None  # by which these may get one; None: there are none
    taught: Mapping[str, float]  # key of each example that a teacher has labelled -> its weight
    left_out: int  # examples that cannot be read or learned


def stacked(rows: Sequence[Tensors], size: int) -> Tensors:
    """Return the rows with a batch axis of `size`; what is missing is zeros."""
    rows = [dict(row) for row in rows]  # one that was left in a file is read once
    stacked = {}
    for name, first in rows[0].items():
        dtype = np.result_type(*{row[name].dtype for row in rows})
        batch = np.zeros((size, *first.shape), dtype)
        np.stack([row[name] for row in rows], out=batch[: len(rows)])
        stacked[name] = batch
    return stacked
