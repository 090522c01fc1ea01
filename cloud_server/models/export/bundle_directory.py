"""Write what is published of one version: its engines and the manifest that describes them."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cloud_server.models.calibration import calibration_inputs
from cloud_server.models.export import BundleJob, ExportResult, Progress
from cloud_server.models.export.litert_graphs import stage_graphs
from cloud_server.models.export.model_directory import FROZEN, TRUNK, TRUNK_INT8
from cloud_server.models.export.parity_gate import (
    litert_outputs,
    require_builtin_operators,
    require_same_outputs,
)
from fleet_model.bundle import (
    MANIFEST,
    TRAINER,
    WRITTEN_PROTOCOL,
    Manifest,
    TensorSpec,
    TrainerSpec,
    entry_of,
    entry_of_file,
    parse_trainer,
    require_file,
    to_json,
)
from fleet_model.durable import write_durably
from fleet_model.errors import BundleError, CheckpointError
from fleet_model.stages import cut
from fleet_model.types import Tensor
from fleet_model.weights import read_weights, require_same_tensors
from fleet_model.workload import rebuild

if TYPE_CHECKING:
    import keras

Engines: TypeAlias = dict[str, tuple[str, ...]]  # precision -> stages in order

WITH_TRUNK: Engines = {
    "fp32": (TRUNK, "head.tflite"),
    "int8": (TRUNK_INT8, "head_int8.tflite"),
}
WITHOUT_TRUNK: Engines = {"fp32": ("model.tflite",), "int8": ("model_int8.tflite",)}


def write_bundle_directory(job: BundleJob, progress: Progress) -> ExportResult:
    """Run a BundleJob; without manifest.json, which is written last, it is not a bundle."""
    spec = _read_spec(job.model)
    workload = rebuild(spec.workload)
    model = workload.build(initial_weights=False)
    _set_weights(model, spec, job)
    progress(f"version {job.version}: {len(spec.tensors)} trained tensors")
    trunk, head = cut(model, list(spec.tensors))
    engines = WITH_TRUNK if trunk else WITHOUT_TRUNK
    inputs = calibration_inputs(workload, job.calibration)
    _write_engines(head, engines, inputs, job, progress)
    metrics = _measured(model, engines, inputs, job.directory)
    trainer = (job.model / TRAINER).read_bytes()
    write_durably(job.directory / TRAINER, trainer)
    names = sorted({name for stages in engines.values() for name in stages})
    manifest = Manifest(
        format=1,
        protocol=WRITTEN_PROTOCOL,
        version=job.version,
        created_at=job.created_at,
        workload=spec.workload,
        labels=workload.labels,
        inputs={x.name: TensorSpec(shape=tuple(x.shape[1:])) for x in model.inputs},
        engines=engines,
        trainer=entry_of(trainer),
        files={name: entry_of_file(job.directory / name) for name in names},
        metrics=metrics,
    )
    write_durably(job.directory / MANIFEST, to_json(manifest))
    return ExportResult(metrics=metrics)


def _write_engines(
    head: "keras.Model",
    engines: Engines,
    inputs: Sequence[Tensor],
    job: BundleJob,
    progress: Progress,
) -> None:
    trunk = [job.model / name for name in engines["fp32"][:-1]]
    features = list(litert_outputs(trunk, inputs)) if trunk else inputs
    for stages, content in zip(engines.values(), stage_graphs(head, features), strict=True):
        for name in stages[:-1]:
            _link(job.model / name, job.directory / name)
        require_builtin_operators(content, stages[-1])
        write_durably(job.directory / stages[-1], content)
        progress(f"{stages[-1]}: {len(content)} bytes")


def _measured(
    model: "keras.Model", engines: Engines, inputs: Sequence[Tensor], directory: Path
) -> dict[str, float]:
    """Pass fp32 through the gate; return how well it matches Keras, and int8 matches fp32."""
    fp32, int8 = (
        litert_outputs([directory / name for name in stages], inputs) for stages in engines.values()
    )
    return {
        "fp32_error": require_same_outputs(model, inputs, fp32, " + ".join(engines["fp32"])),
        "int8_error": float(np.linalg.norm(int8 - fp32) / np.linalg.norm(fp32)),
        "int8_agreement": float((int8.argmax(-1) == fp32.argmax(-1)).mean()),
    }


def _read_spec(directory: Path) -> TrainerSpec:
    try:
        spec = parse_trainer((directory / TRAINER).read_bytes())
    except FileNotFoundError:
        raise BundleError(
            f"{directory.name}: no {TRAINER}; was the model directory written to its end?"
        ) from None
    for name, entry in spec.files.items():
        require_file(directory / name, entry)
    return spec


def _set_weights(model: "keras.Model", spec: TrainerSpec, job: BundleJob) -> None:
    variables = {v.path: v for v in model.weights}
    values = {path: v.numpy() for path, v in variables.items()}
    trained = {path: values.pop(path) for path in spec.tensors}
    for expected, file in ((trained, job.weights), (values, job.model / FROZEN)):
        weights = read_weights(file)
        require_same_tensors(expected, weights, sender=file.name, error=CheckpointError)
        for path, value in weights.items():
            variables[path].assign(value)


def _link(source: Path, target: Path) -> None:
    """Hard-link a file that never changes, or copy it to another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
