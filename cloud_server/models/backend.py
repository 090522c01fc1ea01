"""What computes on the server: one backend per framework builds, exports and checks models.

Runs in the export process. Nothing else on the server knows which framework a workload has.
"""

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from fleet_model.bundle import TrainerSpec, WorkloadSpec
from fleet_model.errors import SettingsError
from fleet_model.loading import load_plugin
from fleet_model.types import Metrics, Weights
from fleet_model.workload import Sample, Workload, installed

Progress: TypeAlias = Callable[[str], None]
NOTE = "note: "  # begins a line of progress that stays on the screen: the operator is to know it

# In this order: the first that has a model of the workload is taken, at init and at every publish.
BACKENDS = {
    "keras": "cloud_server.models.keras.backend:KerasBackend",
    "torch-adapters": "cloud_server.models.torch.adapting:AdaptingBackend",
    "torch": "cloud_server.models.torch.backend:TorchBackend",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a model starts from in place of its initial weights."""

    file: Path  # the operator's own file, or a checkpoint of a server; see own_weights.py
    former: Mapping[str, str] = field(default_factory=dict)  # label in there -> its name here
    frozen: Path | None = None  # model directory whose frozen part stays, byte for byte


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class TrainerFiles:
    """What robots train with, before the first round."""

    weights: Weights  # what travels: the trained tensors, where learning starts
    parts: Mapping[str, tuple[str, ...]]  # as in TrainerSpec: kind of trainer -> its files
    # Kernels whose outputs see a part of the inputs only (depthwise): they get no adapter.
    grouped: Collection[str] = ()
    metrics: Metrics = field(default_factory=dict)  # what the gate measured


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class EngineFiles:
    """What robots predict with, for one version."""

    engines: Mapping[str, tuple[str, ...]]  # as in Manifest: precision -> stages in order
    metrics: Metrics = field(default_factory=dict)


class Backend(Protocol):
    """One framework's model of one workload; built as `Backend(spec, workload)`.

    One with `keeps_adapters = True` computes with A and B beside tensors that never change. Its
    `write_trainer` returns those that get an adapter, and nothing else is trained; `write_engines`
    and `write_file` are given checkpoints as they are, and the specification with the adapter.
    """

    @classmethod
    def has(cls, workload: str) -> bool:
        """Say whether a model of this workload is installed; imports no framework."""
        ...

    def write_trainer(
        self,
        scope: str,
        start: Origin | None,
        batch_size: int,
        samples: Sequence[Sample],
        into: Path,
        progress: Progress,
    ) -> TrainerFiles:
        """Write what does not change between rounds.

        Args:
            scope: which tensors are trained, in the words of the workload's model.
            start: None: the workload's initial weights.
            batch_size: rows of a step; static in exported graphs.
            samples: set the ranges of int8 tensors; exports are checked with them.
            into: an existing directory.
            progress: is given one line for each file.

        Raises:
            SettingsError: the model has no such scope.
            CheckpointError: `start` does not fit.
            ExportError: a file does not compute what the model computes.
        """
        ...

    def write_engines(
        self,
        spec: TrainerSpec,
        model: Path,
        weights: Path,
        samples: Sequence[Sample],
        into: Path,
        progress: Progress,
    ) -> EngineFiles:
        """Write the engines of one version, and links to what they share with the trainer.

        Args:
            spec: of the trainer in `model`.
            model: the directory that `write_trainer` has filled; its files are verified.
            weights: safetensors with the trained tensors.
            samples: as for `write_trainer`.
            into: the directory of the bundle.
            progress: is given one line for each file.

        Raises:
            CheckpointError: the weights are not those of this model.
            ExportError: a file does not compute what the model computes.
        """
        ...

    def write_file(
        self,
        kind: str,
        spec: TrainerSpec,
        model: Path,
        weights: Path,
        samples: Sequence[Sample],
        file: Path,
        progress: Progress,
    ) -> float:
        """Write the whole model of one version as a file for other programs.

        Args:
            kind: of file, e.g. "tflite".
            spec: of the trainer in `model`.
            model: as for `write_engines`.
            weights: the same.
            samples: the same.
            file: a new one.
            progress: as above.

        Returns:
            The largest relative difference of its outputs to those of the model.

        Raises:
            SettingsError: there is no such kind, or a library for it is not installed.
            CheckpointError, ExportError: as `write_engines`.
        """
        ...


def known_backends() -> Mapping[str, str]:
    """Return name -> "module:attribute": ours, then entry points "fleetlearn.backends"."""
    return {
        **BACKENDS,
        **{n: v for n, v in installed("fleetlearn.backends").items() if n not in BACKENDS},
    }


def open_backend(spec: WorkloadSpec, workload: Workload) -> Backend:
    """Return the backend that has a model of the workload.

    Raises:
        SettingsError: none has one; a package may bring a workload for robots that only predict.
    """
    table = known_backends()
    for name in table:
        kind = load_plugin(table, name)
        if kind.has(spec.name):
            backend: Backend = kind(spec, workload)
            return backend
    raise SettingsError(
        f"workload {spec.name!r} has no model for any backend installed here ({', '.join(table)}); "
        "its package must name one, see docs/decisions/0009-workload-and-backend.md"
    )


def keeps_adapters(backend: Backend) -> bool:
    """Say whether a backend is given checkpoints with their adapters, and merged ones if not."""
    return bool(getattr(backend, "keeps_adapters", False))


def link(source: Path, target: Path) -> None:
    """Hard-link a file that never changes, or copy it to another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
