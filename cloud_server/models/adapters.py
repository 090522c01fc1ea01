"""Give the trained tensors of a model low-rank adapters, and merge them again.

No backend knows of adapters: its model has the tensors that they stand for.
"""

import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fleet_model.adapters.lora import choose, first_factors, in_layer_of, merged
from fleet_model.adapters.spec import LoraSpec
from fleet_model.bundle import TrainerSpec
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.signatures import BASE
from fleet_model.types import Tensor, Weights
from fleet_model.weights import read_weights, require_same_tensors, size_bytes, write_weights

_NUMBER = re.compile(r"(?<=/)\d+(?=/)")  # of a layer among its like


class AdapterPlan(BaseModel):
    """What the operator asked `cloud-server init --adapter lora` for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=8, ge=1, le=4096)
    alpha: float = Field(default=16.0, gt=0, allow_inf_nan=False)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    patterns: tuple[str, ...] = Field(default=("*",), min_length=1)


class Adapted(NamedTuple):
    """The tensors of a model with adapters."""

    spec: LoraSpec
    weights: Weights  # what travels
    base: Weights  # what adapters add to
    notes: tuple[str, ...]  # for the operator


def plan_of(spec: TrainerSpec) -> AdapterPlan | None:
    """Return the plan by which the adapters of a trainer were made."""
    if (made := spec.adapter) is None:
        return None
    return AdapterPlan(
        rank=made.rank, alpha=made.alpha, dropout=made.dropout, patterns=made.patterns
    )


def adapt(
    plan: AdapterPlan,
    weights: Weights,
    grouped: Collection[str],
    answer: str = "",
    *,
    alone: bool = False,
) -> Adapted:
    """Put A and B in the place of every tensor that gets an adapter.

    Args:
        plan: what the operator asked for.
        weights: the model's own trained tensors.
        grouped: of them, depthwise and grouped kernels.
        answer: of them, one of the layer whose outputs are the answer; "": unknown.
        alone: tensors that get none are not trained, in place of trained whole.

    Raises:
        SettingsError: none would get one.
    """
    if alone:
        weights = _matching(plan, weights)
    shapes = {path: w.shape for path, w in weights.items()}
    chosen = choose(shapes, plan.patterns, grouped, answer)
    if not chosen.targets:
        why = "; ".join(f"{path}: {reason}" for path, reason in chosen.whole.items())
        raise SettingsError(
            f"--adapter lora: no trained tensor gets an adapter ({why or 'there is no kernel'}); "
            f"trained are: {', '.join(weights)}"
        )
    spec = LoraSpec(kind="lora", **plan.model_dump(), targets=dict(chosen.targets))
    factors = first_factors(spec)
    travelling: dict[str, Tensor] = {}
    for path, tensor in weights.items():
        own = [name for name in factors if name.rpartition(".")[0] == path]
        travelling |= {name: factors[name] for name in own} if own else {path: tensor}
    base = {path: weights[path] for path in chosen.targets}
    notes = _notes(spec, weights, travelling, chosen.whole)
    notes += [
        f"{path} is the layer of the answer: it learns worse with an adapter than without"
        for path in spec.targets
        if in_layer_of(answer, path)
    ]
    return Adapted(spec, travelling, base, tuple(notes))


def _matching(plan: AdapterPlan, weights: Weights) -> Weights:
    """Return the tensors that a pattern names; raises SettingsError for none."""
    chosen = choose({path: w.shape for path, w in weights.items()}, plan.patterns).targets
    if not chosen:
        names = sorted({path.split("/")[-2] for path in weights})
        raise SettingsError(
            f"--adapter-targets: no pattern of {', '.join(plan.patterns)} matches a layer; they "
            f"are as '*/{names[0]}/*', of {', '.join(names)}"
        )
    return {path: weights[path] for path in chosen}


def checkpoint_weights(spec: TrainerSpec, weights: Path) -> Weights:
    """Return the tensors of a checkpoint, A and B and residuals as they are.

    Args:
        spec: of the trainer.
        weights: safetensors of a checkpoint.

    Raises:
        CheckpointError: the file does not fit, or is damaged.
    """
    found = read_weights(weights)
    shapes = {name: tensor.shape for name, tensor in spec.tensors.items()}
    residuals = spec.adapter.residuals if spec.adapter else {}
    shapes |= {name: s for name, s in residuals.items() if name in found}
    _require(shapes, found, weights.name)
    return found


def merged_weights(spec: TrainerSpec, model: Path, weights: Path) -> Weights:
    """Return the model's own trained tensors of a checkpoint.

    Args:
        spec: of the trainer in `model`.
        model: a model directory.
        weights: safetensors of a checkpoint.

    Raises:
        CheckpointError: the files do not fit together, or are damaged.
    """
    if (adapter := spec.adapter) is None:
        return read_weights(weights)
    found = checkpoint_weights(spec, weights)
    base = read_weights(model / BASE)
    _require(adapter.targets, base, BASE)
    return merged(adapter, found, base)


@contextmanager
def merged_file(spec: TrainerSpec, model: Path, weights: Path) -> Iterator[Path]:
    """Yield safetensors of `merged_weights`: the file itself where nothing has an adapter."""
    if spec.adapter is None:
        yield weights
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / weights.name
        write_weights(file, merged_weights(spec, model, weights))
        yield file


@contextmanager
def given_file(
    spec: TrainerSpec, model: Path, weights: Path, *, keeps: bool
) -> Iterator[tuple[TrainerSpec, Path]]:
    """Yield what a backend is given of a checkpoint: its own tensors and a trainer of them.

    `keeps`: see backend.keeps_adapters.
    """
    if keeps:
        yield spec, weights
        return
    with merged_file(spec, model, weights) as file:
        yield spec.without_adapter(), file


def _require(shapes: Mapping[str, tuple[int, ...]], found: Weights, name: str) -> None:
    expected = {path: np.empty(shape, np.float32) for path, shape in shapes.items()}
    require_same_tensors(expected, found, sender=name, error=CheckpointError)


def _in_short(paths: Iterable[str]) -> str:
    """Return paths for people: those that differ in a number alone are counted."""
    alike: dict[str, list[str]] = {}
    for path in paths:
        alike.setdefault(_NUMBER.sub("*", path), []).append(path)
    return ", ".join(
        same[0] if len(same) == 1 else f"{pattern} ({len(same)})" for pattern, same in alike.items()
    )


def _notes(
    spec: LoraSpec, weights: Weights, travelling: Weights, whole: Mapping[str, str]
) -> list[str]:
    notes = [
        f"adapters of rank {spec.rank} on {_in_short(spec.targets)}: {size_bytes(travelling)} "
        f"bytes travel in place of {size_bytes(weights)}"
    ]
    notes += [f"{path} has no adapter and is trained whole: {why}" for path, why in whole.items()]
    for path, tensor in ((path, weights[path]) for path in spec.targets):
        fan_out = tensor.shape[-1]
        fan_in = tensor.size // fan_out
        if (count := spec.rank * (fan_in + fan_out)) >= tensor.size:
            notes.append(
                f"{path}: its adapter has {count} numbers, itself only {tensor.size}; a lower "
                "--rank, or no adapter, sends less"
            )
    return notes
