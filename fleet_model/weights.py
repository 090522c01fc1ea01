"""Check, combine, read, write named tensors."""

from pathlib import Path

import numpy as np

from fleet_model.durable import write_durably
from fleet_model.errors import CheckpointError, FleetError, UpdateError
from fleet_model.types import Weights


def require_same_tensors(
    expected: Weights, actual: Weights, *, sender: str, error: type[FleetError] = UpdateError
) -> None:
    """Raise `error` unless `actual` has the names, shapes, dtypes of `expected` and is finite."""
    for name, tensor in expected.items():
        if name not in actual:
            raise error(
                f"{sender}: lacks {name} of shape {tensor.shape}; was it built from the same "
                "workload?"
            )
        if actual[name].shape != tensor.shape:
            raise error(
                f"{sender}: {name} has shape {actual[name].shape}, expected {tensor.shape}; was it "
                "built from the same workload?"
            )
        if actual[name].dtype != tensor.dtype:
            raise error(f"{sender}: {name} is {actual[name].dtype}, expected {tensor.dtype}")
        if not np.isfinite(actual[name]).all():
            raise error(f"{sender}: {name} holds NaN or infinity, expected finite numbers")
    if unknown := sorted(actual.keys() - expected.keys()):
        raise error(f"{sender}: has the unknown tensor {unknown[0]}")


def difference(after: Weights, before: Weights) -> Weights:
    """Return after - before, tensor by tensor."""
    return {name: after[name] - before[name] for name in before}


def add(base: Weights, change: Weights) -> Weights:
    """Return base + change, tensor by tensor."""
    return {name: base[name] + change[name] for name in base}


def l2_norm(weights: Weights) -> float:
    """Return the Euclidean length of all tensors taken as one vector."""
    return float(np.sqrt(sum(float(np.vdot(w, w)) for w in weights.values())))


def size_bytes(weights: Weights) -> int:
    """Return the bytes of all tensors."""
    return sum(tensor.nbytes for tensor in weights.values())


def write_weights(path: Path, weights: Weights) -> None:
    """Write a safetensors file in one step."""
    from safetensors.numpy import save

    write_durably(path, save({name: np.asarray(w, order="C") for name, w in weights.items()}))


def read_weights(path: Path) -> Weights:
    """Read a safetensors file.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path.name}: no such file") from None
    except (SafetensorError, ValueError, KeyError) as reason:
        raise CheckpointError(
            f"{path.name}: not a readable safetensors file ({reason}); restore it from a backup"
        ) from None
