"""Write Keras models as .tflite: stages that engines run, and the gradient that robots train with.

Only LiteRT's built-in operators are allowed, so robots need no TensorFlow. The same model and
weights give the same bytes in every process. TensorFlow is imported inside the functions.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fleet_model.bundle import Task
from fleet_model.errors import ExportError
from fleet_model.keras.model import KerasModel
from fleet_model.keras.stages import Part
from fleet_model.signatures import (
    FEATURES,
    GRADIENT,
    INFER,
    INPUTS,
    LOSS,
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

    def representative() -> Iterator[dict[str, Any]]:
        for sample in samples:
            yield {signature: sample[name][None] for name, signature in taken.items()}

    signatures = {SERVE: tf.function(serve).get_concrete_function(**specs)}
    with _saved(module, signatures) as folder:
        return _converted(folder), _converted(
            folder,
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
            optimizations=[tf.lite.Optimize.DEFAULT],
            representative_dataset=representative,
            inference_input_type=tf.int8,
            inference_output_type=tf.int8,
        )


def trainer_graph(
    rest: Part, model: KerasModel, task: Task, tensors: Sequence[str], batch_size: int
) -> bytes:
    """Return the signatures "gradient" and "infer" of what is trained; the file holds no weights.

    Weights and gradients are in the order of `tensors`; see `fleet_model.signatures`.

    Raises:
        ExportError: a gradient needs operators that LiteRT does not have.
    """
    import tensorflow as tf

    weight, slope = weight_names(tensors), gradient_names(tensors)
    features = signature_names(FEATURES, rest.inputs, FEATURES)
    targets = signature_names(TARGETS, task.targets, only(task.targets))
    outputs = signature_names(OUTPUTS, task.outputs, only(task.outputs))
    numbered, in_order = _numbered_inputs(rest, weight)

    def spec(shape: Sequence[int], dtype: str, name: str) -> Any:
        return tf.TensorSpec([batch_size, *shape], dtype, name)

    taken = {
        features[name]: spec(tensor.shape[1:], tensor.dtype, features[name])
        for name, tensor in zip(rest.inputs, rest.model.inputs, strict=True)
    }
    taught = {targets[n]: spec(t.shape, t.dtype, targets[n]) for n, t in task.targets.items()}
    counted = {SAMPLE_WEIGHT: spec((), "float32", SAMPLE_WEIGHT)}

    def answer(given: Mapping[str, Any]) -> dict[str, Any]:
        rows = rest.ordered({name: given[signature] for name, signature in features.items()})
        return rest.named(rest.model.stateless_call(in_order(given), [], rows, training=False)[0])

    def gradient(**given: Any) -> dict[str, Any]:
        watched = [given[name] for name in weight.values()]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            truth = {name: given[signature] for name, signature in targets.items()}
            loss = model.loss(truth, answer(given), given[SAMPLE_WEIGHT])
        return {LOSS: loss, **dict(zip(slope.values(), tape.gradient(loss, watched), strict=True))}

    def infer(**given: Any) -> dict[str, Any]:
        answered = answer(given)
        return {signature: answered[name] for name, signature in outputs.items()}

    signatures = {
        GRADIENT: tf.function(gradient).get_concrete_function(
            **taken, **taught, **counted, **numbered
        ),
        INFER: tf.function(infer).get_concrete_function(**taken, **numbered),
    }
    with _saved(tf.Module(), signatures) as folder:
        return _converted(folder)


def _numbered_inputs(
    rest: Part, weight: Mapping[str, str]
) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], list[Any]]]:
    """Return the specs of w000, ... and how to bring their values into Keras's own order."""
    import tensorflow as tf

    shapes = {v.path: v.shape for v in rest.model.trainable_variables}
    if rest.model.non_trainable_variables or set(shapes) != weight.keys():
        raise ExportError(
            "the gradient is exported for heads whose variables are all trained; this one has "
            f"{sorted({v.path for v in rest.model.variables} ^ weight.keys())} besides"
        )
    specs = {name: tf.TensorSpec(shapes[path], tf.float32, name) for path, name in weight.items()}
    return specs, lambda values: [values[weight[path]] for path in shapes]


@contextmanager
def _saved(module: Any, signatures: Mapping[str, Any]) -> Iterator[str]:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=dict(signatures))
        yield folder


def _converted(folder: str, operators: Any = None, **options: Any) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.convert import ConverterError

    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.target_spec.supported_ops = [operators or tf.lite.OpsSet.TFLITE_BUILTINS]
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
