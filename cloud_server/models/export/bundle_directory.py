"""Write what is published of one version: its engines and the manifest that describes them."""

from collections.abc import Sequence
from pathlib import Path

from cloud_server.models.adapters import given_file
from cloud_server.models.backend import keeps_adapters, link, open_backend
from cloud_server.models.export import BundleJob, ExportResult, Progress
from fleet_model.bundle import (
    MANIFEST,
    TRAINER,
    WRITTEN_PROTOCOL,
    Manifest,
    TrainerSpec,
    entry_of,
    entry_of_file,
    parse_trainer,
    require_file,
    to_json,
)
from fleet_model.errors import BundleError
from fleet_model.measures import finite
from fleet_model.signatures import WEIGHTS
from fleet_model.weights import read_weights, write_weights
from fleet_model.workload import Workload, files_of, rebuild


def write_bundle_directory(job: BundleJob, progress: Progress) -> ExportResult:
    """Run a BundleJob; without manifest.json, which is written last, it is not a bundle.

    Nothing is synced: the store copies what is published.
    """
    job.directory.mkdir(parents=True, exist_ok=True)
    spec = _read_spec(job.model)
    workload = rebuild(spec.workload, job.model)
    samples = list(workload.samples(job.calibration))
    backend = open_backend(spec.workload, workload)
    with given_file(spec, job.model, job.weights, keeps=keeps_adapters(backend)) as (
        given,
        weights,
    ):
        made = backend.write_engines(given, job.model, weights, samples, job.directory, progress)
    trainer = (job.model / TRAINER).read_bytes()
    (job.directory / TRAINER).write_bytes(trainer)
    own = (*_weights_for_robots(spec, job), *_workload_files(workload, job))
    metrics = finite(made.metrics)
    names = sorted({name for stages in made.engines.values() for name in stages})
    former = spec.task.former if spec.task else {}
    task = workload.task.model_copy(update={"former": former} if former else {})
    manifest = Manifest(
        format=1,
        protocol=WRITTEN_PROTOCOL,
        version=job.version,
        created_at=job.created_at,
        workload=spec.workload,
        labels=task.classes,
        inputs=task.inputs,
        task=task,
        engines=dict(made.engines),
        trainer=entry_of(trainer),
        files={name: entry_of_file(job.directory / name) for name in (*names, *own)},
        metrics=dict(metrics),
    )
    if read := tuple(files_of(workload)):
        manifest = manifest.model_copy(update={"workload_files": read})
    (job.directory / MANIFEST).write_bytes(to_json(manifest))
    return ExportResult(metrics=dict(metrics))


def _weights_for_robots(spec: TrainerSpec, job: BundleJob) -> Sequence[str]:
    """Write what a robot with tensors of its own needs, where it can run them; return the names.

    Robots fetch only files that they need: others never ask for this one.
    """
    if "litert" not in spec.parts:
        return ()
    write_weights(job.directory / WEIGHTS, read_weights(job.weights))
    return (WEIGHTS,)


def _workload_files(workload: Workload, job: BundleJob) -> Sequence[str]:
    """Link the files that the workload reads; return their names."""
    for name in files_of(workload):
        link(job.model / name, job.directory / name)
    return files_of(workload)


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
