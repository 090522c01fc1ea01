"""Write what does not change between rounds: trunk, trainer, initial and frozen weights."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cloud_server.models.calibration import calibration_inputs
from cloud_server.models.checkpoint_import import import_checkpoint
from cloud_server.models.export import ExportResult, InitJob, Progress
from cloud_server.models.export.litert_graphs import stage_graphs, trainer_graph
from cloud_server.models.export.parity_gate import (
    Start,
    keras_graph,
    litert_graph,
    litert_outputs,
    require_builtin_operators,
    require_same_outputs,
    require_same_training,
    require_usable_int8,
)
from fleet_model.bundle import (
    TRAINER,
    WRITTEN_PROTOCOL,
    TensorSpec,
    TrainerSpec,
    WorkloadSpec,
    entry_of_file,
    to_json,
)
from fleet_model.durable import write_durably
from fleet_model.stages import cut, frozen_variables
from fleet_model.types import Metrics, Tensor, Weights
from fleet_model.weights import write_weights
from fleet_model.workload import Workload, rebuild

if TYPE_CHECKING:
    import keras

WEIGHTS, FROZEN = "weights.safetensors", "frozen.safetensors"
TRUNK, TRUNK_INT8, TRAINER_GRAPH = "trunk.tflite", "trunk_int8.tflite", "trainer.tflite"


def write_model_directory(job: InitJob, progress: Progress) -> ExportResult:
    """Run an InitJob; without trainer.json, which is written last, the directory is not usable."""
    workload = rebuild(job.workload)
    model = workload.build(initial_weights=job.checkpoint is None)
    if job.checkpoint is not None:
        import_checkpoint(job.checkpoint, model)
    tensors = workload.trainable(model, job.trainable)
    trunk, head = cut(model, tensors)
    frozen = frozen_variables(model, tensors)
    weights = {v.path: v.numpy() for v in model.weights if v.path not in frozen}
    weights = {path: weights[path] for path in tensors}
    write_weights(job.directory / WEIGHTS, weights)
    write_weights(job.directory / FROZEN, {path: v.numpy() for path, v in frozen.items()})
    progress(f"{len(weights)} trained and {len(frozen)} frozen tensors")

    metrics: dict[str, float] = {}
    parts: dict[str, tuple[str, ...]] = {"keras": (FROZEN,)}
    if trunk is not None:
        inputs = calibration_inputs(workload, job.calibration)
        metrics.update(_write_trunk(trunk, inputs, job, progress))
    if trunk is not None and job.trainable == "head":
        metrics.update(_write_trainer(head, workload, weights, job, progress))
        parts["litert"] = (TRUNK, TRAINER_GRAPH)
    write_durably(job.directory / TRAINER, to_json(_spec(job, workload, weights, parts)))
    return ExportResult(metrics=metrics)


def _write_trunk(
    trunk: "keras.Model", inputs: Sequence[Tensor], job: InitJob, progress: Progress
) -> Metrics:
    contents = dict(zip((TRUNK, TRUNK_INT8), stage_graphs(trunk, inputs), strict=True))
    for name, content in contents.items():
        require_builtin_operators(content, name)
        write_durably(job.directory / name, content)
        progress(f"{name}: {len(content)} bytes")
    fp32, int8 = (litert_outputs([job.directory / name], inputs) for name in contents)
    return {
        "trunk_error": require_same_outputs(trunk, inputs, fp32, TRUNK),
        "trunk_int8_error": require_usable_int8(fp32, int8, TRUNK_INT8),
    }


def _write_trainer(
    head: "keras.Model", workload: Workload, weights: Weights, job: InitJob, progress: Progress
) -> Metrics:
    content = trainer_graph(head, workload, list(weights), job.batch_size)
    require_builtin_operators(content, TRAINER_GRAPH)
    write_durably(job.directory / TRAINER_GRAPH, content)
    progress(f"{TRAINER_GRAPH}: {len(content)} bytes")
    error = require_same_training(
        litert_graph(job.directory / TRAINER_GRAPH, list(weights)),
        keras_graph(head, workload, list(weights)),
        Start(weights, tuple(head.input.shape[1:]), job.batch_size, len(workload.labels)),
    )
    return {"gradient_error": error}


def _spec(
    job: InitJob, workload: Workload, weights: Weights, parts: Mapping[str, tuple[str, ...]]
) -> TrainerSpec:
    names = sorted({name for files in parts.values() for name in files})
    return TrainerSpec(
        format=1,
        protocol=WRITTEN_PROTOCOL,
        workload=WorkloadSpec(name=job.workload.name, config=dict(workload.config)),
        trainable=job.trainable,
        tensors={path: TensorSpec(shape=value.shape) for path, value in weights.items()},
        batch_size=job.batch_size,
        files={name: entry_of_file(job.directory / name) for name in names},
        parts=dict(parts),
    )
