"""Write what does not change between rounds: the trainer, its files, the initial weights."""

import shutil
from collections.abc import Mapping

from cloud_server.models.adapters import adapt
from cloud_server.models.backend import (
    NOTE,
    Origin,
    TrainerFiles,
    keeps_adapters,
    open_backend,
)
from cloud_server.models.export import ExportResult, InitJob, Progress
from cloud_server.models.hub import fetched, is_hub_name
from cloud_server.models.own_weights import model_of
from fleet_model.bundle import (
    TRAINER,
    WRITTEN_PROTOCOL,
    TensorSpec,
    TrainerSpec,
    WorkloadSpec,
    entry_of_file,
    to_json,
)
from fleet_model.errors import SettingsError
from fleet_model.measures import finite
from fleet_model.signatures import BASE, WEIGHTS
from fleet_model.types import Weights
from fleet_model.weights import write_weights
from fleet_model.workload import Workload, files_of, read_files, rebuild

HUB_FILES = ("config.json", "model.safetensors")  # beside a workload's own


def write_model_directory(job: InitJob, progress: Progress) -> ExportResult:
    """Run an InitJob; without trainer.json, which is written last, the directory is not usable.

    Nothing is synced: `cloud-server init` syncs all that it has made before it gives it its name.
    """
    job.directory.mkdir(parents=True, exist_ok=True)
    workload = rebuild(job.workload)
    job = _with_files(job, workload)
    start = None
    if job.checkpoint is not None:
        start = Origin(file=job.checkpoint, former=job.former, frozen=job.frozen)
    backend = open_backend(job.workload, workload)
    alone = keeps_adapters(backend)
    if alone and job.adapter is None:
        raise SettingsError(f"workload {job.workload.name!r} trains adapters: add --adapter lora")
    made = backend.write_trainer(
        job.trainable,
        start,
        job.batch_size,
        list(workload.samples(job.calibration)),
        job.directory,
        progress,
    )
    if job.adapter is None:
        spec, weights = _spec(job, workload, made.weights, made.parts), made.weights
    else:
        spec, weights = _with_adapter(job, workload, made, progress, alone=alone)
    write_weights(job.directory / WEIGHTS, weights)
    (job.directory / TRAINER).write_bytes(to_json(spec))
    return ExportResult(metrics=dict(finite(made.metrics)))


def _with_files(job: InitJob, workload: Workload) -> InitJob:
    """Copy the files that a workload needs from where its weights come from, and read them."""
    names = files_of(workload)
    if not names:
        return job
    if job.checkpoint is None:
        raise SettingsError(
            f"workload {job.workload.name!r} starts from a folder: --checkpoint FOLDER, with "
            f"{', '.join(names)} beside the weights"
        )
    if is_hub_name(job.checkpoint):
        folder = fetched(str(job.checkpoint), list(dict.fromkeys((*names, *HUB_FILES))))
        job = job.model_copy(update={"checkpoint": folder})
    assert job.checkpoint is not None
    source = job.frozen or model_of(job.checkpoint) or job.checkpoint
    read_files(workload, source)
    if write := getattr(workload, "write_files", None):
        write(source, job.directory)
    else:
        for name in names:
            shutil.copyfile(source / name, job.directory / name)
    return job


def _with_adapter(
    job: InitJob, workload: Workload, made: TrainerFiles, progress: Progress, *, alone: bool
) -> tuple[TrainerSpec, Weights]:
    """Write what adapters add to; return the trainer and the tensors that travel.

    `alone`: the backend has written it, in a file of its own.
    """
    assert job.adapter is not None
    answer = getattr(workload, "class_bias", "")
    adapted = adapt(job.adapter, made.weights, made.grouped, answer, alone=alone)
    for note in adapted.notes:
        progress(f"{NOTE}{note}")
    parts = made.parts
    if not alone:
        write_weights(job.directory / BASE, adapted.base)
        parts = {kind: (*files, BASE) for kind, files in made.parts.items()}
    spec = _spec(job, workload, adapted.weights, parts)
    critical = (*spec.critical, "adapter")
    return spec.model_copy(update={"adapter": adapted.spec, "critical": critical}), adapted.weights


def _spec(
    job: InitJob, workload: Workload, weights: Weights, parts: Mapping[str, tuple[str, ...]]
) -> TrainerSpec:
    parts = {kind: (*files, *files_of(workload)) for kind, files in parts.items()}
    names = sorted({name for files in parts.values() for name in files})
    return TrainerSpec(
        format=1,
        protocol=WRITTEN_PROTOCOL,
        workload=WorkloadSpec(name=job.workload.name, config=dict(workload.config)),
        trainable=job.trainable,
        tensors={path: TensorSpec(shape=value.shape) for path, value in weights.items()},
        batch_size=job.batch_size,
        files={name: entry_of_file(job.directory / name) for name in names},
        parts=parts,
        task=workload.task.model_copy(update={"former": job.former} if job.former else {}),
    )
