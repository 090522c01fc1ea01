"""Low-rank adapters as another way to write a tensor, in NumPy, the same for every framework.

LoRA (Hu et al. 2021, arXiv:2106.09685, equation 3) with s = alpha / rank:

    W = W0 + s * (A B + R)      A: (fan_in, rank), B: (rank, fan_out), R: (fan_in, fan_out)

W0 stays as it is. R is zero unless a rule of the server adds to it. A model is given W, and from
the gradient G of W, which it computes anyway, follow those of the factors:

    dL/dA = s * G B^T,  dL/dB = s * A^T G

So no framework needs to know of adapters, and no graph is exported for them. A dense kernel
(in, out) is used as it is; the kernel of a convolution (height, width, in, out) is taken for
(height * width * in, out): A is then a convolution to `rank` channels, B one of 1 x 1 behind it.
"""

import fnmatch
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fleet_model.adapters.spec import RESIDUAL, A, B, LoraSpec
from fleet_model.types import Tensor, Weights


class Chosen(NamedTuple):
    """The trained tensors, by whether they get an adapter."""

    targets: Mapping[str, tuple[int, ...]]  # path -> shape
    whole: Mapping[str, str]  # matrices and kernels that are trained whole -> why


def choose(
    shapes: Mapping[str, tuple[int, ...]],
    patterns: Sequence[str],
    grouped: Collection[str] = (),
    answer: str = "",
) -> Chosen:
    """Return which of the trained tensors get an adapter; biases and scales never do.

    The layer that gives the answer is new: what it has to learn is no small change of what it was,
    and through an adapter it sees no more than `rank` directions of its inputs, drawn at random,
    which hardly turn in few rounds. So it is trained whole, unless a pattern other than "*" names
    it, or nothing else could have an adapter. In PEFT it is among the `modules_to_save`.

    Args:
        shapes: of the trained tensors.
        patterns: of paths, as a shell matches file names: "*", "head/*", "block_16_*".
        grouped: kernels whose outputs see a part of the inputs only, as depthwise ones.
        answer: a tensor of the layer whose outputs are the answer, as "head/bias"; "": unknown.
    """
    targets, whole = {}, {}
    for path, shape in shapes.items():
        if len(shape) < 2:  # a vector
            continue
        if path in grouped:
            whole[path] = "a depthwise or grouped kernel"
        elif len(shape) not in (2, 4):
            whole[path] = f"its shape {shape} is of no dense layer and no 2-D convolution"
        elif not _matches(path, patterns):
            whole[path] = f"no pattern of {', '.join(patterns)} matches it"
        else:
            targets[path] = shape
    last = [path for path in targets if in_layer_of(answer, path)]
    last = [path for path in last if not _matches(path, set(patterns) - {"*"})]
    if len(last) < len(targets):
        for path in last:
            del targets[path]
            whole[path] = "the layer of the answer, which learns better so"
    return Chosen(targets, whole)


def in_layer_of(answer: str, path: str) -> bool:
    """Tell whether a tensor is of the layer that `answer`, as `choose` has it, is a tensor of.

    Or of a layer in it: the head of a text's encoder has two.
    """
    layer = answer.rpartition("/")[0]
    return bool(layer) and path.startswith(f"{layer}/")


def _matches(path: str, patterns: Collection[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def first_factors(spec: LoraSpec) -> dict[str, Tensor]:
    """Return every A and B before the first round: the model computes what W0 alone computes.

    B is zero. A has normal numbers, drawn from its name: the same at every call. Their size is
    sqrt(rank / 2) / alpha, 1 / 8 by default: a step of B then moves W, on average, half as far as a
    step of W itself would, and is as stable, whatever rank and alpha are. So a learning rate that
    is good for W is good for the adapter, too, of a layer that was trained before; of a new head it
    may be too large (see `choose`).
    """
    size = math.sqrt(spec.rank / 2) / spec.alpha
    return {name: first_factor(name, shape, size) for name, shape in spec.factors.items()}


def first_factor(name: str, shape: tuple[int, ...], size: float, seed: int = 0) -> Tensor:
    """Return one factor as `first_factors` does.

    Args:
        name: of an A or a B.
        shape: of it.
        size: the root of the mean square of A's numbers.
        seed: another one gives another A.
    """
    if name.endswith(B):
        return np.zeros(shape, np.float32)
    drawn = np.random.default_rng([zlib.crc32(name.encode()), seed]).standard_normal(shape)
    drawn *= size / np.sqrt(np.square(drawn).mean())
    return drawn.astype(np.float32)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return A B: (fan_in, fan_out) float64."""
    whole: Tensor = a.astype(np.float64) @ b.astype(np.float64)
    return whole


def merged(spec: LoraSpec, weights: Weights, base: Weights) -> dict[str, Tensor]:
    """Return the tensors that a model takes: W in the place of A and B.

    W is computed in float64 and rounded once: a robot trains and measures with the very numbers
    that the server publishes.

    Args:
        spec: of the adapters.
        weights: of a checkpoint or in training; residuals may be among them.
        base: W0 of each target, of the target's shape.
    """
    whole = {}
    for path, shape in spec.targets.items():
        change = product(weights[path + A], weights[path + B])
        if (residual := weights.get(path + RESIDUAL)) is not None:
            change += residual
        change *= spec.scale
        whole[path] = (change.reshape(shape) + base[path]).astype(np.float32)
    trained = {name: w for name, w in weights.items() if not name.endswith(RESIDUAL)}
    return spec.replaced(trained, whole)


def factor_gradients(spec: LoraSpec, weights: Weights, gradients: Weights) -> dict[str, Tensor]:
    """Return the gradients by the names in which tensors travel, from those of the model's own."""
    found = {name: g for name, g in gradients.items() if name not in spec.targets}
    scale = np.float32(spec.scale)
    for path in spec.targets:
        a, b = weights[path + A], weights[path + B]
        slope = gradients[path].reshape(len(a), -1)  # (fan_in, fan_out)
        found[path + A] = scale * (slope @ b.T)
        found[path + B] = scale * (a.T @ slope)
    return found


def row_masks(spec: LoraSpec, seed: int, step: int) -> dict[str, Tensor]:
    """Return what the rows of each A are multiplied with in one step; {} without dropout.

    A row of A belongs to one input of the layer. LoRA drops inputs of the adapter for each example
    by itself; a tensor that a whole batch shares cannot. So one draw holds for a step: a row is
    dropped with the probability `dropout`, the others are longer by 1 / (1 - dropout). The mean is
    the same, the noise of a step is larger. The gradient of A is multiplied with the same mask.

    Returns:
        (fan_in, 1) float32 each, by the name of A; equal for equal arguments.
    """
    if spec.dropout == 0:
        return {}
    masks = {}
    for path, shape in spec.targets.items():
        name = path + A
        random = np.random.default_rng([seed % 2**64, step, zlib.crc32(name.encode())])
        kept = random.random((math.prod(shape[:-1]), 1)) >= spec.dropout
        masks[name] = (kept / (1 - spec.dropout)).astype(np.float32)
    return masks


def masked(tensors: Weights, masks: Mapping[str, Tensor]) -> Weights:
    """Return tensors with masks applied to those that have one."""
    return {**tensors, **{name: tensors[name] * mask for name, mask in masks.items()}}
