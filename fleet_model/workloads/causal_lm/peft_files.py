"""Adapters in the two files that the library peft reads: adapter_config.json, its safetensors.

peft has A as (rank, fan_in) and B as (fan_out, rank), by the names of its own wrapper's modules.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fleet_model.adapters.spec import RESIDUAL, A, B, LoraSpec
from fleet_model.errors import BundleError, CheckpointError
from fleet_model.types import Tensor, Weights
from fleet_model.weights import read_weights, write_weights

KERNEL = "kernel"  # how the path of a linear layer ends, see fleet_model/torch/tensors.py
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX, _ENDS = "base_model.model.", {A: ".lora_A.weight", B: ".lora_B.weight"}
# Of a rule's residual, singular values below this share of the largest are nothing but rounding.
_NOTHING = 1e-6


def write_adapter(spec: LoraSpec, weights: Weights, into: Path) -> int:
    """Write both files; return the rank that they have.

    A residual, which a rule has added to A B, is written as further columns of A and rows of B: by
    its singular vectors, as many as it needs, so that peft computes the same.

    Args:
        spec: of the adapters.
        weights: A and B of each target, and residuals where there are some.
        into: a folder.
    """
    factors = {path: _factors(weights, path) for path in spec.targets}
    rank: int = max(a.shape[1] for a, _ in factors.values())
    found: dict[str, Tensor] = {}
    for path, (a, b) in factors.items():
        wider = rank - a.shape[1]
        name = _PREFIX + path.removesuffix(f"/{KERNEL}").replace("/", ".")
        found[name + _ENDS[A]] = np.ascontiguousarray(np.pad(a, ((0, 0), (0, wider))).T)
        found[name + _ENDS[B]] = np.ascontiguousarray(np.pad(b, ((0, wider), (0, 0))).T)
    about = {
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": spec.scale * rank,
        "lora_dropout": spec.dropout,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(
            path.removesuffix(f"/{KERNEL}").replace("/", ".") for path in spec.targets
        ),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    (into / ADAPTER_CONFIG).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    write_weights(into / ADAPTER, found, {"format": "pt"})
    return rank


def read_adapter(directory: Path, path: Callable[[str], str]) -> tuple[LoraSpec, Weights]:
    """Return what `write_adapter` has written.

    Args:
        directory: holds both files.
        path: see TorchModel.path.

    Raises:
        BundleError: a file is missing or damaged, or they do not belong together.
    """
    try:
        about = json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        rank, alpha = int(about["r"]), float(about["lora_alpha"])
        found = read_weights(directory / ADAPTER)
    except CheckpointError as error:
        raise BundleError(str(error)) from None
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise BundleError(f"{ADAPTER_CONFIG}: is no adapter's: {type(error).__name__}") from None
    weights: dict[str, Tensor] = {}
    for name, tensor in found.items():
        for end, theirs in _ENDS.items():
            if name.startswith(_PREFIX) and name.endswith(theirs):
                layer = name.removeprefix(_PREFIX).removesuffix(theirs)
                weights[path(f"{layer}.{KERNEL}") + end] = np.ascontiguousarray(tensor.T)
    targets = _targets(weights, rank)
    if not targets or len(weights) != len(found) or len(weights) != 2 * len(targets):
        raise BundleError(f"{ADAPTER}: is only a part of the adapter that {ADAPTER_CONFIG} names")
    return LoraSpec(rank=rank, alpha=alpha, targets=targets), weights


def _targets(weights: Weights, rank: int) -> dict[str, tuple[int, ...]]:
    """Return path -> (fan_in, fan_out) of what has an A and a B of this rank."""
    found: dict[str, tuple[int, ...]] = {}
    for name, a in weights.items():
        target = name.removesuffix(A)
        b = weights.get(target + B)
        if name.endswith(A) and b is not None and a.shape[1] == b.shape[0] == rank:
            found[target] = (a.shape[0], b.shape[1])
    return found


def _factors(weights: Weights, path: str) -> tuple[Tensor, Tensor]:
    """Return A and B of one target, a residual among them: (fan_in, r), (r, fan_out)."""
    a, b = weights[path + A], weights[path + B]
    residual = weights.get(path + RESIDUAL)
    if residual is None or not residual.any():
        return a, b
    left, sizes, right = np.linalg.svd(residual.astype(np.float64), full_matrices=False)
    count = int(np.sum(sizes > _NOTHING * sizes[0]))
    root = np.sqrt(sizes[:count])
    more_a, more_b = left[:, :count] * root, root[:, None] * right[:count]
    return (
        np.concatenate([a, more_a.astype(np.float32)], axis=1),
        np.concatenate([b, more_b.astype(np.float32)], axis=0),
    )
