"""What a training that was killed resumes from: one safetensors file, replaced in one step."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fleet_model.errors import CheckpointError
from fleet_model.types import Tensor
from fleet_model.weights import read_metadata, read_weights, write_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

_MODEL, _OPTIMIZER, _RANDOM = "model.", "optimizer.", "random."
_PROGRESS = "progress"


class TrainingState(NamedTuple):
    """Where a training is."""

    step: int  # that were taken
    history: list[dict[str, Any]]  # scores on the way
    losses: list[float]  # of the steps since the last score


def write_state(
    file: Path,
    state: TrainingState,
    module: "nn.Module",
    optimizer: "torch.optim.Optimizer",
    device: "torch.device",
) -> None:
    """Keep a training: the model, the optimizer's moments, the generators of random numbers."""
    import torch

    tensors = {f"{_MODEL}{name}": t for name, t in module.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{index}.{name}": t for name, t in moments.items()}
    tensors[f"{_RANDOM}cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors[f"{_RANDOM}cuda"] = torch.cuda.get_rng_state(device)
    arrays = {name: _array(tensor) for name, tensor in tensors.items()}
    write_weights(file, arrays, {_PROGRESS: json.dumps(state._asdict())})


def read_state(
    file: Path, module: "nn.Module", optimizer: "torch.optim.Optimizer", device: "torch.device"
) -> TrainingState | None:
    """Set model, optimizer and generators to what was kept; None where nothing was.

    A file that cannot be read is none: the training begins anew.
    """
    import torch

    if not file.is_file():
        return None
    try:
        arrays = read_weights(file)
        state = TrainingState(**json.loads(read_metadata(file)[_PROGRESS]))
    except (CheckpointError, KeyError, ValueError, TypeError):
        return None
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    module.load_state_dict(_below(tensors, _MODEL))
    moments: dict[int, dict[str, Any]] = {}
    for name, tensor in _below(tensors, _OPTIMIZER).items():
        index, _, kind = name.partition(".")
        moments.setdefault(int(index), {})[kind] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    torch.set_rng_state(tensors[f"{_RANDOM}cpu"])
    if device.type == "cuda" and f"{_RANDOM}cuda" in tensors:
        torch.cuda.set_rng_state(tensors[f"{_RANDOM}cuda"], device)
    return state


def _array(tensor: "torch.Tensor") -> Tensor:
    array: Tensor = np.array(tensor.detach().cpu().numpy(), order="C")
    return array


def _below(tensors: dict[str, Any], start: str) -> dict[str, Any]:
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
