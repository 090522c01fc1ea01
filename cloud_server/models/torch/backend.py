"""Build a workload's torch model, export it for ONNX Runtime, check what was exported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cloud_server.models.agreement import label_agreement
from cloud_server.models.backend import (
    NOTE,
    EngineFiles,
    Origin,
    Progress,
    TrainerFiles,
    link,
)
from cloud_server.models.own_weights import Rows
from cloud_server.models.torch.onnx_files import (
    require_same,
    require_usable_int8,
    torch_outputs,
    write_int8,
    write_onnx,
)
from cloud_server.models.torch.start import started, write_files
from fleet_model.bundle import TensorSpec, TrainerSpec, WorkloadSpec
from fleet_model.engine import EngineStage, StagedModel
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.loading import load_plugin
from fleet_model.signatures import FROZEN, only
from fleet_model.torch.model import Cut, Part, known_torch_models, torch_model
from fleet_model.torch.tensors import slots
from fleet_model.types import Metrics, Tensor, Tensors
from fleet_model.weights import read_weights, require_same_tensors, write_weights
from fleet_model.workload import Sample, Workload

if TYPE_CHECKING:
    from torch import nn

PART = "torch"  # what robots train with, see TrainerSpec.parts
Engines: TypeAlias = Mapping[str, tuple[str, ...]]  # precision -> stages in order
TRUNK, TRUNK_INT8 = "trunk.onnx", "trunk_int8.onnx"
# A head is small: it stays in float32 behind either trunk.
WITH_TRUNK: Engines = {"fp32": (TRUNK, "head.onnx"), "int8": (TRUNK_INT8, "head.onnx")}
WITHOUT_TRUNK: Engines = {"fp32": ("model.onnx",), "int8": ("model_int8.onnx",)}


class TorchBackend:
    """`Backend` of a workload that has a `TorchModel`."""

    def __init__(self, spec: WorkloadSpec, workload: Workload) -> None:
        self._workload, self._task = workload, workload.task
        self._model = torch_model(spec, workload)

    @classmethod
    def has(cls, workload: str) -> bool:
        """Say whether a torch model of this workload is installed, and trains tensors whole."""
        table = known_torch_models()
        return workload in table and not getattr(load_plugin(table, workload), "adapts", False)

    def write_trainer(
        self,
        scope: str,
        start: Origin | None,
        batch_size: int,
        samples: Sequence[Sample],
        into: Path,
        progress: Progress,
    ) -> TrainerFiles:
        """Write what is frozen, what says how the model is built, and the trunk's engines."""
        _require_torch()
        axes = getattr(self._model, "class_axes", {})
        former = {} if start is None else start.former
        model, words = started(self._model, start, Rows(self._task.classes, axes, former))
        progress(f"{NOTE}{words}" if words else "weights read")
        write_files(self._model, start, into)
        trained = self._model.trainable(model, scope)
        found = slots(model, self._model.path)
        if start and start.frozen and (fixed := sorted(axes.keys() - set(trained))):
            raise SettingsError(
                f"labels cannot be added or renamed here: {scope!r} does not train {fixed[0]}"
            )
        weights = {path: found[path].value() for path in trained}
        frozen = {path: slot.value() for path, slot in found.items() if path not in weights}
        write_weights(into / FROZEN, frozen)
        progress(f"{len(weights)} trained and {len(frozen)} frozen tensors")
        parts = {PART: (FROZEN, *self._model.files)}
        cut = self._model.cut(model, trained)
        metrics: Metrics = {}
        if cut.trunk is not None:
            self._require_whole(model, cut, samples, scope)
            metrics = self._write_trunk(cut.trunk, samples, into, progress)
        return TrainerFiles(weights=weights, parts=parts, metrics=metrics)

    def write_engines(
        self,
        spec: TrainerSpec,
        model: Path,
        weights: Path,
        samples: Sequence[Sample],
        into: Path,
        progress: Progress,
    ) -> EngineFiles:
        """Write what is behind the cut; the trunk's files are linked."""
        _require_torch()
        built = self._built(spec, model, weights)
        progress(f"{len(spec.tensors)} trained tensors")
        cut = self._model.cut(built, list(spec.tensors))
        inputs: Sequence[Tensors] = [sample.encoded.inputs for sample in samples]
        if cut.trunk is None:
            engines = WITHOUT_TRUNK
            self._write_rest(cut.rest, inputs, into / "model.onnx", progress)
            size = write_int8(into / "model.onnx", into / "model_int8.onnx")
            progress(f"model_int8.onnx: {size} bytes")
        else:
            engines = WITH_TRUNK
            for name in (TRUNK, TRUNK_INT8):
                link(model / name, into / name)
            self._write_rest(cut.rest, hidden(cut.trunk, inputs), into / "head.onnx", progress)
        return EngineFiles(engines=engines, metrics=self._measured(built, engines, samples, into))

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
        """Write the whole model for ONNX Runtime."""
        if kind != "onnx":
            raise SettingsError(
                f"no file of kind {kind!r} can be written of this workload; choose onnx, or "
                "safetensors"
            )
        _require_torch()
        progress(file.name)
        built = self._built(spec, model, weights)
        whole = self._whole(built)
        inputs = [sample.encoded.inputs for sample in samples]
        labels = self._task.classes
        self._write_rest(whole, inputs, file, lambda line: None, labels)
        return require_same(torch_outputs(whole, inputs), self._run([file], inputs), file.name)

    def _whole(self, model: "nn.Module") -> Part:
        return self._model.cut(model, list(slots(model, self._model.path))).rest

    def _require_whole(
        self, model: "nn.Module", cut: Cut, samples: Sequence[Sample], scope: str
    ) -> None:
        """Raise CheckpointError where what is kept at the cut is not all that the rest needs."""
        assert cut.trunk is not None
        inputs = [sample.encoded.inputs for sample in samples]
        expected = torch_outputs(self._whole(model), inputs)
        found = torch_outputs(cut.rest, hidden(cut.trunk, inputs))
        for name, answers in expected.items():
            # Beside how the answers differ: those of a new head are all nearly 0.
            most = max(1e-6, 0.01 * float(np.ptp(answers, axis=0).max()))
            if np.abs(found[name] - answers).max() > most:
                raise CheckpointError(
                    f"{scope!r} cannot be trained alone in this model: what follows needs more "
                    "than is kept of the layers before, and would answer something else; choose "
                    "another --trainable, such as all"
                )

    def _built(self, spec: TrainerSpec, model: Path, weights: Path) -> "nn.Module":
        """Return the model of one version; raises CheckpointError."""
        built = self._model.build(model)
        found = slots(built, self._model.path)
        values: dict[str, Tensor] = {path: slot.value() for path, slot in found.items()}
        moving = {path: values.pop(path) for path in spec.tensors}
        for expected, file in ((moving, weights), (values, model / FROZEN)):
            read = read_weights(file)
            require_same_tensors(expected, read, sender=file.name, error=CheckpointError)
            for path, value in read.items():
                found[path].assign(value)
        return built

    def _write_trunk(
        self, trunk: Part, samples: Sequence[Sample], into: Path, progress: Progress
    ) -> Metrics:
        inputs = [sample.encoded.inputs for sample in samples]
        size = write_onnx(trunk, self._task.inputs, inputs, into / TRUNK)
        progress(f"{TRUNK}: {size} bytes")
        size = write_int8(into / TRUNK, into / TRUNK_INT8)
        progress(f"{TRUNK_INT8}: {size} bytes")
        fp32, int8 = (self._run([into / name], inputs, last=False) for name in (TRUNK, TRUNK_INT8))
        return {
            "trunk_error": require_same(torch_outputs(trunk, inputs), fp32, TRUNK),
            "trunk_int8_error": require_usable_int8(fp32, int8, TRUNK_INT8),
        }

    def _write_rest(
        self,
        rest: Part,
        rows: Sequence[Tensors],
        file: Path,
        progress: Progress,
        labels: Sequence[str] = (),
    ) -> None:
        specs = {
            name: TensorSpec(shape=rows[0][name].shape, dtype=rows[0][name].dtype.name)
            for name in rest.inputs
        }
        size = write_onnx(rest, specs, rows, file, only(self._task.outputs), labels)
        progress(f"{file.name}: {size} bytes")

    def _measured(
        self, built: "nn.Module", engines: Engines, samples: Sequence[Sample], directory: Path
    ) -> Metrics:
        """Pass fp32 through the gate; return how well it matches torch, and int8 matches fp32."""
        inputs: Sequence[Tensors] = [sample.encoded.inputs for sample in samples]
        expected = torch_outputs(self._whole(built), inputs)
        fp32, int8 = (
            self._run([directory / name for name in engines[precision]], inputs)
            for precision in ("fp32", "int8")
        )
        metrics = {
            "fp32_error": require_same(expected, fp32, " + ".join(engines["fp32"])),
            "int8_error": require_usable_int8(fp32, int8, " + ".join(engines["int8"])),
        }
        if self._task.answer == "class":
            metrics["int8_agreement"] = label_agreement(self._workload, fp32, int8, samples)
        return metrics

    def _run(
        self, files: Sequence[Path], inputs: Sequence[Tensors], *, last: bool = True
    ) -> dict[str, Tensor]:
        """Return what files answer as robots run them, stacked; a trunk's are not the last."""
        model = StagedModel(
            files, self._task.inputs, self._task.outputs if last else None, 1, self._open
        )
        answers = [model(tensors) for tensors in inputs]
        return {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}

    def _open(self, path: Path, num_threads: int) -> EngineStage:
        stage: EngineStage = self._workload.open_stage(path, num_threads)  # type: ignore[attr-defined]
        return stage


def hidden(trunk: Part, inputs: Sequence[Tensors]) -> list[Tensors]:
    """Return what the rest takes of each input."""
    found = torch_outputs(trunk, inputs)
    return [{name: rows[i] for name, rows in found.items()} for i in range(len(inputs))]


def _require_torch() -> None:
    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"this workload needs {error.name}, which is not installed here: "
            "pip install 'fleetlearn[torch-server]'"
        ) from None
