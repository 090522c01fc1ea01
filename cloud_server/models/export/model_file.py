"""Write one version as a file for other programs."""

from cloud_server.models.adapters import given_file
from cloud_server.models.backend import keeps_adapters, open_backend
from cloud_server.models.export import ExportResult, FileJob, Progress
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.workload import rebuild


def write_model_file(job: FileJob, progress: Progress) -> ExportResult:
    """Run a FileJob; the file is there only if it computes what the model computes."""
    spec = parse_trainer((job.model / TRAINER).read_bytes())
    workload = rebuild(spec.workload, job.model)
    backend = open_backend(spec.workload, workload)
    samples = list(workload.samples(None))
    try:
        keeps = keeps_adapters(backend)
        with given_file(spec, job.model, job.weights, keeps=keeps) as (given, weights):
            error = backend.write_file(
                job.kind, given, job.model, weights, samples, job.file, progress
            )
    except BaseException:
        job.file.unlink(missing_ok=True)
        raise
    return ExportResult(metrics={"error": error})
