"""Build a torch model that trains adapters alone; publish them as files that peft reads."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cloud_server.models.adapters import checkpoint_weights
from cloud_server.models.agreement import require_all
from cloud_server.models.backend import (
    NOTE,
    EngineFiles,
    Origin,
    Progress,
    TrainerFiles,
    link,
)
from cloud_server.models.own_weights import model_of
from cloud_server.models.torch.backend import PART, hidden
from cloud_server.models.torch.onnx_files import torch_outputs
from fleet_model.adapters.lora import merged
from fleet_model.bundle import TrainerSpec, WorkloadSpec
from fleet_model.errors import CheckpointError, ExportError, SettingsError
from fleet_model.loading import load_plugin
from fleet_model.torch.adapters import LayerAdapters
from fleet_model.torch.folder import quiet_transformers
from fleet_model.torch.model import known_torch_models, torch_model
from fleet_model.torch.tensors import slots
from fleet_model.types import Tensor, Tensors, Weights
from fleet_model.workload import Sample, Workload, files_of
from fleet_model.workloads.causal_lm.peft_files import ADAPTER, ADAPTER_CONFIG, write_adapter

if TYPE_CHECKING:
    from torch import nn

# Relative (L2), of what the trainer's model and an engine's files say of the same samples: they
# compute the same, but for adapters that a residual has made wider.
TOLERANCE = 1e-3
PEFT = "peft"  # a zip of both files
MERGED = "merged"  # a zip of a folder of Hugging Face's layout, kernels with their adapters in them
# As TOLERANCE, of a model with its adapters in its kernels; those of bfloat16 have 8 bits.
_MERGED_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}


class AdaptingBackend:
    """`Backend` of a workload whose `TorchModel` adapts: see there."""

    keeps_adapters = True

    def __init__(self, spec: WorkloadSpec, workload: Workload) -> None:
        self._workload = workload
        self._model = torch_model(spec, workload)

    @classmethod
    def has(cls, workload: str) -> bool:
        """Say whether a torch model of this workload is installed that trains adapters alone."""
        table = known_torch_models()
        return workload in table and bool(getattr(load_plugin(table, workload), "adapts", False))

    def write_trainer(
        self,
        scope: str,
        start: Origin | None,
        batch_size: int,
        samples: Sequence[Sample],
        into: Path,
        progress: Progress,
    ) -> TrainerFiles:
        """Write the base as it travels; return the kernels that get an adapter."""
        _require_torch()
        if start is None or start.frozen or model_of(start.file) is not None:
            raise CheckpointError(
                "adapters of a language model start from a folder with config.json, its weights as "
                "safetensors, tokenizer.json and tokenizer_config.json: --checkpoint FOLDER"
            )
        model = self._model.load(start.file)
        found = slots(model, self._model.path)
        kernels = {path: found[path].value() for path in self._model.trainable(model, scope)}
        (base,) = self._model.files
        size = self._model.save(model, into / base)  # type: ignore[attr-defined]
        progress(f"{NOTE}{base}: {size} bytes, which each client fetches once")
        losses = self._costs(model, list(kernels), samples)
        if not np.isfinite(losses).all():
            raise CheckpointError(f"{start.file.name}: the model answers what is no number")
        return TrainerFiles(weights=kernels, parts={PART: (base,)})

    def write_engines(
        self,
        spec: TrainerSpec,
        model: Path,
        weights: Path,
        samples: Sequence[Sample],
        into: Path,
        progress: Progress,
    ) -> EngineFiles:
        """Write the adapter; the base is linked."""
        found = checkpoint_weights(spec, weights)
        expected = self._answers(spec, model, found, samples)
        (base,) = self._model.files
        link(model / base, into / base)
        for name in files_of(self._workload):
            link(model / name, into / name)
        assert spec.adapter is not None
        rank = write_adapter(spec.adapter, found, into)
        progress(f"{ADAPTER}: {(into / ADAPTER).stat().st_size} bytes, rank {rank}")
        names = (base, ADAPTER_CONFIG, ADAPTER)
        engine = self._workload.open_files([into / n for n in names], 1)  # type: ignore[attr-defined]
        answers = [engine(sample.encoded.inputs) for sample in samples]
        actual = {n: np.stack([answer[n] for answer in answers]) for n in expected}
        error = require_all(expected, actual, ADAPTER, TOLERANCE)
        return EngineFiles(engines={"fp32": names}, metrics={"fp32_error": error})

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
        """Write a zip of the adapter's two files, or of the model that has them in its kernels."""
        if kind not in (PEFT, MERGED):
            raise SettingsError(
                f"no file of kind {kind!r} can be written of adapters; choose {PEFT}: a zip of the "
                f"two files that peft loads beside the base, or {MERGED}: a zip of the whole model"
            )
        aside = file.with_name("adapter")
        aside.mkdir()
        if kind == MERGED:
            return self._write_merged(spec, model, weights, samples, aside, file)
        made = self.write_engines(spec, model, weights, samples, aside, progress)
        with zipfile.ZipFile(file, "w") as archive:
            for name in (ADAPTER_CONFIG, ADAPTER):
                archive.write(aside / name, name)
        return made.metrics["fp32_error"]

    def _write_merged(
        self,
        spec: TrainerSpec,
        model: Path,
        weights: Path,
        samples: Sequence[Sample],
        aside: Path,
        file: Path,
    ) -> float:
        """Write a zip of a folder that transformers loads; return how far its answers are off."""
        found = checkpoint_weights(spec, weights)
        expected = self._answers(spec, model, found, samples)
        assert spec.adapter is not None
        built = self._model.build(model)
        kernels = slots(built, self._model.path)
        base = {path: kernels[path].value() for path in spec.adapter.targets}
        for path, kernel in merged(spec.adapter, found, base).items():
            kernels[path].assign(kernel)
        with quiet_transformers():
            built.save_pretrained(aside)
        for name in files_of(self._workload):
            if not (aside / name).exists():  # config.json has been written, and says more
                link(model / name, aside / name)
        with zipfile.ZipFile(file, "w") as archive:
            for one in sorted(aside.iterdir()):
                archive.write(one, one.name)
        again = {"nll": self._costs(self._model.load(aside), list(spec.tensors), samples)}
        tolerance = _MERGED_TOLERANCE[getattr(self._workload, "dtype", "float32")]
        return require_all(expected, again, file.name, tolerance)

    def _answers(
        self, spec: TrainerSpec, model: Path, weights: Weights, samples: Sequence[Sample]
    ) -> Tensors:
        """Return what a client's trainer says with these weights, of each sample."""
        assert spec.adapter is not None
        built = self._model.build(model)
        adapters = LayerAdapters(built, self._model.path, spec.adapter)
        for name, slot in adapters.slots.items():
            slot.assign(weights[name])
        adapters.set_residuals(weights)
        costs = self._costs(built, list(spec.tensors), samples)
        if not np.isfinite(costs).all():
            raise ExportError("with these adapters the model answers what is no number")
        return {"nll": costs}

    def _costs(
        self, model: "nn.Module", trained: Sequence[str], samples: Sequence[Sample]
    ) -> Tensor:
        """Return what the answers of samples cost, (samples,)."""
        cut = self._model.cut(model, trained)
        inputs: Sequence[Tensors] = [sample.encoded.inputs for sample in samples]
        costs: Tensor = torch_outputs(cut.rest, hidden(cut.trunk, inputs) if cut.trunk else inputs)[
            "nll"
        ]
        return costs


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"this workload needs {error.name}, which is not installed here: "
            "pip install 'fleetlearn[torch-server]'"
        ) from None
