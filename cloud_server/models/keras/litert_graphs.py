"""Write Keras models as .tflite: stages that engines run, and the gradient that robots train with.

Only LiteRT's built-in operators are allowed, so robots need no TensorFlow. The same model and
weights give the same bytes in every process. TensorFlow is imported inside the functions.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from cloud_server.models.keras.gradient_ops import written
from fleet_model.bundle import Task
from fleet_model.errors import ExportError
from fleet_model.keras.model import KerasModel, answered
from fleet_model.keras.stages import Learned, Part
from fleet_model.signatures import (
    FEATURES,
    GRADIENT,
    INFER,
    INPUTS,
    LOSS,
    MAPS,
    OUTPUTS,
    SAMPLE_WEIGHT,
    SERVE,
    TARGETS,
    gradient_names,
    only,
    signature_names,
    weight_names,
)
from fleet_model.types import Tensors


def float_graph(part: Part, task: Task, *, first: bool, last: bool) -> bytes:
    """Return one stage in float32; batch 1. See `stage_graphs`."""
    with _stage(part, task, first=first, last=last) as (folder, _):
        return _converted(folder)


def stage_graphs(
    part: Part, samples: Sequence[Tensors], task: Task, *, first: bool, last: bool
) -> tuple[bytes, bytes]:
    """Return one stage in float32, and in int8 throughout; batch 1.

    Args:
        part: the stage in Keras.
        samples: inputs without the batch axis; they set the ranges of the int8 tensors.
        task: of the whole model.
        first: whether it takes the task's inputs.
        last: whether it answers the task's outputs.
    """
    with _stage(part, task, first=first, last=last) as (folder, taken):
        return _converted(folder), _converted_int8(folder, taken, samples)


def compact_graph(
    part: Part, task: Task, kind: Literal["fp16", "dynamic", "int8"], samples: Sequence[Tensors]
) -> bytes:
    """Return a whole model in fewer bits a number; batch 1.

    Args:
        part: the model in Keras.
        task: of the model.
        kind: "fp16", kernels alone; "dynamic", kernels in int8, and what passes between layers
            while products are computed; "int8", all of it, also what goes in and comes out.
        samples: see `stage_graphs`, for "int8".
    """
    import tensorflow as tf

    with _stage(part, task, first=True, last=True) as (folder, taken):
        if kind == "int8":
            return _converted_int8(folder, taken, samples)
        types = [tf.float16] if kind == "fp16" else []
        return _converted(folder, types=types, optimizations=[tf.lite.Optimize.DEFAULT])


def _converted_int8(folder: str, taken: Mapping[str, str], samples: Sequence[Tensors]) -> bytes:
    import tensorflow as tf

    def representative() -> Iterator[dict[str, Any]]:
        for sample in samples:
            yield {signature: sample[name][None] for name, signature in taken.items()}

    return _converted(
        folder,
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=representative,
        inference_input_type=tf.int8,
        inference_output_type=tf.int8,
    )


@contextmanager
def _stage(
    part: Part, task: Task, *, first: bool, last: bool
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Save a stage for conversion; yield the folder, and name -> signature of its inputs."""
    import tensorflow as tf

    module = tf.Module()
    # tf.Module does not see Keras variables: without this list they are exported uninitialised.
    module.tracked = [v.value for v in part.model.variables]
    taken = signature_names(INPUTS, part.inputs, only(task.inputs) if first else FEATURES)
    given = signature_names(OUTPUTS, part.outputs, only(task.outputs) if last else FEATURES)

    def serve(**inputs: Any) -> dict[str, Any]:
        answer = part({name: inputs[signature] for name, signature in taken.items()})
        return {signature: answer[name] for name, signature in given.items()}

    specs = {
        taken[name]: tf.TensorSpec([1, *tensor.shape[1:]], tensor.dtype, taken[name])
        for name, tensor in zip(part.inputs, part.model.inputs, strict=True)
    }

    signatures = {SERVE: tf.function(serve).get_concrete_function(**specs)}
    with _saved(module, signatures) as folder:
        yield folder, taken


def trainer_graph(
    rest: Part,
    model: KerasModel,
    task: Task,
    tensors: Sequence[str],
    batch_size: int,
    steps: Learned | None = None,
) -> bytes:
    """Return the signatures "gradient" and "infer" of what is trained; the file holds no weights.

    "gradient" is that of `steps`, where steps learn from crops; otherwise it is of the same part.

    "infer" gives maps, too, where answers are read from them: the gate compares what does not
    depend on the order of boxes.

    Weights and gradients are in the order of `tensors`; see `fleet_model.signatures`.

    Raises:
        ExportError: a gradient needs operators that LiteRT does not have.
    """
    import tensorflow as tf

    weight, slope = weight_names(tensors), gradient_names(tensors)
    features = signature_names(FEATURES, rest.inputs, FEATURES)
    targets = signature_names(TARGETS, task.targets, only(task.targets))
    outputs = signature_names(OUTPUTS, task.outputs, only(task.outputs))
    maps = signature_names(MAPS, getattr(model, "maps", ()), "")
    steps = steps or Learned(rest, model)
    step_of, answer_of = written(steps.rest, weight.keys()), written(rest, weight.keys())
    shapes = {variable.path: variable.shape for variable in rest.model.variables}
    numbered = {n: tf.TensorSpec(shapes[path], tf.float32, n) for path, n in weight.items()}

    def spec(shape: Sequence[int], dtype: str, name: str) -> Any:
        return tf.TensorSpec([batch_size, *shape], dtype, name)

    def taken(part: Part) -> dict[str, Any]:
        return {
            features[name]: spec(tensor.shape[1:], tensor.dtype, features[name])
            for name, tensor in zip(part.inputs, part.model.inputs, strict=True)
        }

    taught = {targets[n]: spec(t.shape, t.dtype, targets[n]) for n, t in task.targets.items()}
    counted = {SAMPLE_WEIGHT: spec((), "float32", SAMPLE_WEIGHT)}

    def named(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        values = {path: given[name] for path, name in weight.items()}
        return values, {name: given[one] for name, one in features.items()}

    def gradient(**given: Any) -> dict[str, Any]:
        watched = [given[name] for name in weight.values()]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            truth = {name: given[signature] for name, signature in targets.items()}
            loss = steps.definition.loss(truth, step_of(*named(given)), given[SAMPLE_WEIGHT])
        return {LOSS: loss, **dict(zip(slope.values(), tape.gradient(loss, watched), strict=True))}

    def infer(**given: Any) -> dict[str, Any]:
        learned = answer_of(*named(given))
        answers = answered(model, learned)
        return {signature: answers[name] for name, signature in outputs.items()} | {
            signature: learned[name] for name, signature in maps.items()
        }

    signatures = {
        GRADIENT: tf.function(gradient, autograph=False).get_concrete_function(
            **taken(steps.rest), **taught, **counted, **numbered
        ),
        INFER: tf.function(infer, autograph=False).get_concrete_function(**taken(rest), **numbered),
    }
    with _saved(tf.Module(), signatures) as folder:
        return _converted(folder)


@contextmanager
def _saved(module: Any, signatures: Mapping[str, Any]) -> Iterator[str]:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=dict(signatures))
        yield folder


def _converted(
    folder: str, operators: Any = None, types: Sequence[Any] = (), **options: Any
) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.convert import ConverterError

    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.target_spec.supported_ops = [operators or tf.lite.OpsSet.TFLITE_BUILTINS]
    if types:
        converter.target_spec.supported_types = list(types)
    for name, value in options.items():
        setattr(converter, name, value)
    try:
        return bytes(converter.convert())
    except ConverterError as reason:
        lines = [line.strip() for line in str(reason).splitlines() if " ops: " in line]
        raise ExportError(
            "LiteRT lacks an operator that this model needs: "
            f"{'; '.join(lines) or str(reason).strip().splitlines()[-1]}"
        ) from None
