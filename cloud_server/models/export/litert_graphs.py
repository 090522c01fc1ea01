"""Write Keras models as .tflite: stages that engines run, and the gradient that robots train with.

Only LiteRT's built-in operators are allowed, so robots need no TensorFlow. The same model and
weights give the same bytes in every process. TensorFlow is imported inside the functions.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fleet_model.errors import ExportError
from fleet_model.types import Tensor
from fleet_model.workload import Workload

if TYPE_CHECKING:
    import keras


def stage_graphs(model: "keras.Model", samples: Sequence[Tensor]) -> tuple[bytes, bytes]:
    """Return one stage in float32, and in int8 throughout; batch 1, one input and one output.

    Args:
        model: the stage in Keras.
        samples: inputs without the batch axis; they set the ranges of the int8 tensors.
    """
    import tensorflow as tf

    module = tf.Module()
    # tf.Module does not see Keras variables: without this list they are exported uninitialised.
    module.tracked = [v.value for v in model.variables]

    def serve(inputs: Any) -> dict[str, Any]:
        return {"outputs": model(inputs, training=False)}

    spec = tf.TensorSpec([1, *model.input.shape[1:]], tf.float32, "inputs")
    signatures = {"serving_default": tf.function(serve).get_concrete_function(spec)}
    with _saved(module, signatures) as folder:
        return _converted(folder), _converted(
            folder,
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
            optimizations=[tf.lite.Optimize.DEFAULT],
            representative_dataset=lambda: ([sample[None]] for sample in samples),
            inference_input_type=tf.int8,
            inference_output_type=tf.int8,
        )


def trainer_graph(
    head: "keras.Model", workload: Workload, tensors: Sequence[str], batch_size: int
) -> bytes:
    """Return the signatures "gradient" and "infer" of a head; the file holds no weights.

    Weights are inputs w000, w001, ... in the order of `tensors`, gradients outputs g000, g001, ...
    Names are zero-padded because LiteRT returns outputs in string order.

    Raises:
        ExportError: a gradient needs operators that LiteRT does not have.
    """
    import tensorflow as tf

    numbered, in_order = _numbered_inputs(head, tensors)
    batch = [
        tf.TensorSpec([batch_size, *head.input.shape[1:]], tf.float32, "features"),
        tf.TensorSpec([batch_size], tf.int32, "targets"),
        tf.TensorSpec([batch_size], tf.float32, "sample_weight"),
    ]

    def logits(features: Any, weights: Mapping[str, Any]) -> Any:
        return head.stateless_call(in_order(weights), [], features, training=False)[0]

    def gradient(features: Any, targets: Any, sample_weight: Any, **weights: Any) -> dict[str, Any]:
        watched = [weights[f"w{i:03d}"] for i in range(len(tensors))]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            loss = workload.loss(targets, logits(features, weights), sample_weight)
        named = {f"g{i:03d}": g for i, g in enumerate(tape.gradient(loss, watched))}
        return {"loss": loss, **named}

    def infer(features: Any, **weights: Any) -> dict[str, Any]:
        return {"outputs": logits(features, weights)}

    signatures = {
        "gradient": tf.function(gradient).get_concrete_function(*batch, **numbered),
        "infer": tf.function(infer).get_concrete_function(batch[0], **numbered),
    }
    with _saved(tf.Module(), signatures) as folder:
        return _converted(folder)


def _numbered_inputs(
    head: "keras.Model", tensors: Sequence[str]
) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], list[Any]]]:
    """Return the specs of w000, ... and how to bring their values into Keras's own order."""
    import tensorflow as tf

    shapes = {v.path: v.shape for v in head.trainable_variables}
    if head.non_trainable_variables or set(shapes) != set(tensors):
        raise ExportError(
            "the gradient is exported for heads whose variables are all trained; this one has "
            f"{sorted({v.path for v in head.variables} ^ set(tensors))} besides"
        )
    number = {path: f"w{i:03d}" for i, path in enumerate(tensors)}
    specs = {name: tf.TensorSpec(shapes[path], tf.float32, name) for path, name in number.items()}
    return specs, lambda weights: [weights[number[path]] for path in shapes]


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
