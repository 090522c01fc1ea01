"""Set the smallest numbers of kernels to zero (magnitude pruning), in NumPy, for any framework."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from cloud_server.compression.folders import read_encoder, write_encoder
from fleet_model.errors import SettingsError
from fleet_model.types import Tensor, Weights

Among: TypeAlias = Literal["all", "each"]
_EMBEDDINGS, _BIAS_AXES = "embeddings.", 1


def prune(
    weights: Weights, share: float, among: Among = "all", kept: Collection[str] = ()
) -> tuple[dict[str, Tensor], Mapping[str, Tensor]]:
    """Return tensors of which the smallest numbers are 0, and masks of what stays.

    Exactly round(share * n) of n numbers are set to zero; of equal ones the first. Vectors (biases,
    norms) stay whole. Song Han et al., arXiv:1506.02626, without what they train afterwards.

    Args:
        weights: by name.
        share: of the numbers, 0 <= share < 1.
        among: "all" compares the numbers of all kernels, "each" those of one kernel.
        kept: names that stay whole.

    Returns:
        all tensors, new where something is pruned; name -> bool array of its shape, True where
        a number stays, of each tensor that may be pruned.

    Raises:
        SettingsError: `share` is no such number, or nothing can be pruned.
    """
    if not 0 <= share < 1:
        raise SettingsError(f"share to prune is {share:g}, expected 0 or more and less than 1")
    names = [n for n, t in weights.items() if t.ndim > _BIAS_AXES and n not in kept]
    if not names:
        raise SettingsError("there is no kernel to prune: all tensors are vectors, or kept whole")
    if among == "each":
        masks = {name: _mask(weights[name].ravel(), share) for name in names}
    else:
        whole = _mask(np.concatenate([weights[name].ravel() for name in names]), share)
        ends = np.cumsum([weights[name].size for name in names])
        masks = dict(zip(names, np.split(whole, ends[:-1]), strict=True))
    shaped = {name: mask.reshape(weights[name].shape) for name, mask in masks.items()}
    made = {name: np.where(mask, weights[name], 0) for name, mask in shaped.items()}
    return {**weights, **made}, shaped


def prune_encoder(model: Path, share: float, into: Path, among: Among = "all") -> float:
    """Write an encoder with pruned layers; return the share of zeros in what may be pruned.

    The table of words and positions stays whole. The file stays as large: zeros are numbers, too.
    `distill` keeps them zero.

    Args:
        model: folder with config.json, model.safetensors, tokenizer.json.
        share: see `prune`.
        into: an empty folder.
        among: see `prune`.

    Raises:
        CheckpointError: the folder cannot be read.
        SettingsError: as `prune`.
    """
    config, weights = read_encoder(model)
    tables = [name for name in weights if _EMBEDDINGS in name]
    made, masks = prune(weights, share, among, tables)
    write_encoder(into, config, made, model)
    zeros = sum(int(np.count_nonzero(made[name] == 0)) for name in masks)
    return zeros / sum(mask.size for mask in masks.values())


def _mask(numbers: Tensor, share: float) -> Tensor:
    mask = np.ones(numbers.size, bool)
    mask[np.argsort(np.abs(numbers), kind="stable")[: round(share * numbers.size)]] = False
    return mask
