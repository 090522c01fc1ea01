"""Examples ready for training, and the batches of named tensors that they are cut into."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from edge_agent.training.feature_cache import FeatureCache
from fleet_model.types import PseudoLabel, Target, Tensor, Tensors
from fleet_model.weights import size_bytes
from fleet_model.workload import Workload


class Batch(NamedTuple):
    """Rows of one call; those after the last example are zeros."""

    features: Tensors
    targets: Tensors
    sample_weight: Tensor  # (batch,) float32


# A row's features and target, as a batch has them.
Crop: TypeAlias = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]
_SIGN_AND_NUMBER = np.uint32(0x8FFFE000).view(np.int32)
_NO_FLOAT16 = 2.0**16  # the exponent of what is not finite, read as any other
CROPS = 1  # the seed of a round draws the order of its examples, too: this tells the two apart


class RowAgain(Mapping[str, Tensor]):
    """Features that are computed whenever a batch has the row: there is no room to keep them."""

    def __init__(self, names: Iterable[str], compute: Callable[[], Tensors]) -> None:
        self._names, self.computed = tuple(names), compute

    def __getitem__(self, name: str) -> Tensor:
        return self.computed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def is_without_room(kept: FeatureCache, key: str, inputs: Tensors, features: Tensors) -> bool:
    """Tell whether features are not kept, and what they are computed from takes less memory."""
    return key not in kept and size_bytes(inputs) < size_bytes(features)


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Examples sorted by key; `features` are the cache's own rows, large ones left in its file."""

    features: Sequence[Tensors]
    targets: Sequence[Target]
    keys: Sequence[str] = ()  # of the examples
    crop: Crop | None = None  # draws what a batch has of each row; None: all of it

    def cropped(self, workload: Workload, seed: int) -> "Rows":
        """Return the same rows, of which each batch has a new crop where the workload has crops.

        Args:
            workload: says what a crop is; see Workload.
            seed: the same gives the same crops in the same order of batches.
        """
        if getattr(workload, "of_crops", None) is None:
            return self
        draw: Callable[..., tuple[Tensors, Tensors]] = workload.crop  # type: ignore[attr-defined]
        return replace(self, crop=partial(draw, rng=np.random.default_rng([seed % 2**64, CROPS])))

    def weight(self, picked: Iterable[int]) -> float:
        """Return what these examples count together."""
        return math.fsum(self.targets[index].weight for index in picked)

    def batches(self, order: Sequence[int], size: int) -> Iterator[Batch]:
        """Yield batches in `order`; the last one is padded by rows of weight 0."""
        for start in range(0, len(order), size):
            picked = order[start : start + size]
            sample_weight = np.zeros(size, np.float32)
            sample_weight[: len(picked)] = [self.targets[index].weight for index in picked]
            rows = [(self.features[index], self.targets[index].tensors) for index in picked]
            if self.crop:
                rows = [self.crop(_read(features), target) for features, target in rows]
            features, targets = zip(*rows, strict=True)
            yield Batch(stacked(features, size), stacked(targets, size), sample_weight)

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


def _read(row: Tensors) -> Tensors:
    """Return a row's tensors, computed once where they are not kept."""
    return row.computed() if isinstance(row, RowAgain) else dict(row)


def stacked(rows: Sequence[Tensors], size: int) -> Tensors:
    """Return the rows with a batch axis of `size`; what is missing is zeros.

    Axes of rows may differ in their length, as those of texts: the longest row counts. What is kept
    in float16 becomes float32, which models compute with.
    """
    rows = [_read(row) for row in rows]
    return {name: _stacked([row[name] for row in rows], size) for name in rows[0]}


def _stacked(tensors: Sequence[Tensor], size: int) -> Tensor:
    dtype = np.result_type(*{tensor.dtype for tensor in tensors})
    if dtype == np.float16:
        bits = _stacked([tensor.view(np.int16) for tensor in tensors], size)
        return from_float16(bits)
    shape = np.max([tensor.shape for tensor in tensors], axis=0).astype(int)
    batch = np.zeros((size, *shape), dtype)
    for number, tensor in enumerate(tensors):
        place: tuple[Any, ...] = (number, *map(slice, tensor.shape))
        batch[place] = tensor
    return batch


def from_float16(bits: Tensor) -> Tensor:
    """Return the same numbers in float32: three times as fast as NumPy's own, which asks each one.

    Sign and fraction keep their places; the exponent counts from 15 there, from 127 here.

    Args:
        bits: of float16, as int16.
    """
    wide = bits.astype(np.int32)  # copies of the sign fill what is above it
    wide <<= 13
    wide &= _SIGN_AND_NUMBER
    numbers = wide.view(np.float32)
    numbers *= np.float32(2.0 ** (127 - 15))
    if numbers.size and not -_NO_FLOAT16 < numbers.min() <= numbers.max() < _NO_FLOAT16:
        return bits.view(np.float16).astype(np.float32)  # infinite, or not a number
    return numbers
