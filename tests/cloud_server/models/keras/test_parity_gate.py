"""Each file here converts without an error and computes something else."""

import numpy as np
import pytest

from cloud_server.models.keras.litert_graphs import stage_graphs, trainer_graph
from cloud_server.models.keras.parity_gate import (
    Start,
    Step,
    keras_graph,
    litert_graph,
    litert_outputs,
    require_builtin_operators,
    require_same_outputs,
    require_same_training,
    require_usable_int8,
)
from fleet_model.bundle import Task, TensorSpec
from fleet_model.engine import StagedModel
from fleet_model.errors import ExportError
from fleet_model.keras.stages import Part
from fleet_model.workloads.image_classifier import ImageClassifier
from fleet_model.workloads.image_classifier.keras_model import ImageClassifierModel

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

BATCH, WIDTH = 6, 5
WORKLOAD = ImageClassifier(["circle", "square", "star"])
TASK, MODEL = WORKLOAD.task, ImageClassifierModel(WORKLOAD)


def dense_head():
    """Return a head like that of the image classifier."""
    import keras

    features = keras.Input((WIDTH,))
    return keras.Model(features, keras.layers.Dense(3, name="head")(features))


def two_layer_head():
    """Return a head with a ReLU straight after a matmul without bias."""
    import keras

    features = keras.Input((WIDTH,))
    hidden = keras.layers.Dense(WIDTH, activation="relu", use_bias=False, name="hidden")(features)
    return keras.Model(features, keras.layers.Dense(3, use_bias=False, name="head")(hidden))


def part(head):
    """Return a Keras model as what follows the trunk of the image classifier."""
    return Part(head, ("features",), ("logits",))


def start(weights):
    return Start(weights, {"features": TensorSpec(shape=(WIDTH,))}, TASK, BATCH)


def gate(head, content, tmp_path):
    file = tmp_path / "trainer.tflite"
    file.write_bytes(content)
    rng = np.random.default_rng(0)
    weights = {v.path: rng.normal(size=v.shape).astype(np.float32) for v in head.weights}
    return require_same_training(
        litert_graph(file, part(head), TASK, list(weights)),
        keras_graph(part(head), MODEL, list(weights)),
        start(weights),
    )


def convert(signatures, module=None, *, select=False):
    """Convert tf.functions with their specs; `select` allows TensorFlow's own operators."""
    import tempfile

    import tensorflow as tf

    operators = tf.lite.OpsSet
    with tempfile.TemporaryDirectory() as folder:
        concrete = {
            name: tf.function(function).get_concrete_function(**specs)
            for name, (function, specs) in signatures.items()
        }
        tf.saved_model.save(module or tf.Module(), folder, signatures=concrete)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [operators.TFLITE_BUILTINS]
        if select:
            converter.target_spec.supported_ops.append(operators.SELECT_TF_OPS)
        return converter.convert()


def hand_written_trainer(forward, shapes, names=None, weigh=lambda w: w):
    """Return a trainer as `trainer_graph` does, with one's own forward pass and names."""
    import tensorflow as tf

    def spec(shape, dtype, name):
        return tf.TensorSpec(shape, dtype, name)

    names = names or [f"g{i:03d}" for i in range(len(shapes))]
    weights = {f"w{i:03d}": spec(s, tf.float32, f"w{i:03d}") for i, s in enumerate(shapes)}
    features = spec([BATCH, WIDTH], tf.float32, "features")

    def gradient(features, targets, sample_weight, **weights):
        values = list(weights.values())
        with tf.GradientTape() as tape:
            tape.watch(values)
            outputs = forward(features, *values)
            loss = MODEL.loss({"class": targets}, {"logits": outputs}, weigh(sample_weight))
        return {"loss": loss, **dict(zip(names, tape.gradient(loss, values), strict=True))}

    def infer(features, **weights):
        return {"outputs": forward(features, *weights.values())}

    batch = {
        "features": features,
        "targets": spec([BATCH], tf.int32, "targets"),
        "sample_weight": spec([BATCH], tf.float32, "sample_weight"),
    }
    return convert(
        {
            "gradient": (gradient, batch | weights),
            "infer": (infer, {"features": features} | weights),
        }
    )


def fused_relu():
    import tensorflow as tf

    @tf.custom_gradient
    def relu(x):
        y = tf.nn.relu(x)
        return y, lambda dy: dy * tf.cast(y > 0, dy.dtype)

    return relu


def test_a_faithful_trainer_passes(tmp_path):
    head = dense_head()
    content = trainer_graph(part(head), MODEL, TASK, [v.path for v in head.weights], BATCH)

    require_builtin_operators(content, "trainer.tflite")
    assert gate(head, content, tmp_path) < 1e-5


def test_weights_may_travel_in_another_order_than_keras_has(tmp_path):
    head = dense_head()
    content = trainer_graph(part(head), MODEL, TASK, ["head/bias", "head/kernel"], BATCH)
    file = tmp_path / "trainer.tflite"
    file.write_bytes(content)
    weights = {"head/bias": np.zeros(3, np.float32), "head/kernel": np.ones((5, 3), np.float32)}

    error = require_same_training(
        litert_graph(file, part(head), TASK, list(weights)),
        keras_graph(part(head), MODEL, list(weights)),
        start(weights),
    )

    assert error < 1e-5


def test_a_dropped_relu_is_refused(tmp_path):
    relu = fused_relu()
    content = hand_written_trainer(
        lambda x, hidden, head: relu(x @ hidden) @ head, [(WIDTH, WIDTH), (WIDTH, 3)]
    )

    with pytest.raises(ExportError, match=r"trainer\.tflite: (loss|outputs) in step 0 are off"):
        gate(two_layer_head(), content, tmp_path)


def test_gradients_in_swapped_order_are_refused(tmp_path):
    import keras

    features = keras.Input((WIDTH,))
    x = keras.layers.Dense(WIDTH, use_bias=False, name="first")(features)
    x = keras.layers.Dense(WIDTH, use_bias=False, name="second")(x)
    head = keras.Model(features, keras.layers.Dense(3, use_bias=False, name="head")(x))
    square = (WIDTH, WIDTH)

    def trainer(names):
        return hand_written_trainer(
            lambda x, a, b, c: x @ a @ b @ c, [square, square, (WIDTH, 3)], names
        )

    assert gate(head, trainer(["g000", "g001", "g002"]), tmp_path) < 1e-4
    with pytest.raises(ExportError, match="gradient of first/kernel in step 0 are off"):
        gate(head, trainer(["g001", "g000", "g002"]), tmp_path)


def test_gradients_of_another_shape_are_refused(tmp_path):
    content = hand_written_trainer(
        lambda x, kernel, bias: x @ kernel + bias, [(WIDTH, 3), (3,)], ["g001", "g000"]
    )

    with pytest.raises(ExportError, match=r"gradient of head/kernel .* have shape \(3,\)"):
        gate(dense_head(), content, tmp_path)


def test_a_trainer_that_counts_padding_is_refused_in_the_padded_step(tmp_path):
    import tensorflow as tf

    content = hand_written_trainer(
        lambda x, kernel, bias: x @ kernel + bias,
        [(WIDTH, 3), (3,)],
        weigh=lambda weight: tf.maximum(weight, 0.1),
    )

    with pytest.raises(ExportError, match=r"in step 3 \(padded\)"):
        gate(dense_head(), content, tmp_path)


def test_a_trainer_that_lacks_a_signature_is_refused(tmp_path):
    import tensorflow as tf

    specs = {"features": tf.TensorSpec([BATCH, WIDTH], tf.float32, "features")}
    content = convert({"infer": (lambda features: {"outputs": features[:, :3]}, specs)})

    with pytest.raises(ExportError, match="signature gradient"):
        gate(dense_head(), content, tmp_path)


def test_a_file_that_needs_tensorflow_is_refused_with_the_operator():
    import tensorflow as tf

    def gradient_of_relu(x):
        return {"y": tf.raw_ops.ReluGrad(gradients=x, features=x)}

    specs = {"x": tf.TensorSpec([2, 3], tf.float32, "x")}
    content = convert({"serving_default": (gradient_of_relu, specs)}, select=True)

    with pytest.raises(ExportError, match=r"^trunk\.tflite: needs FlexReluGrad, which robots do"):
        require_builtin_operators(content, "trunk.tflite")


def test_a_head_whose_gradient_needs_tensorflow_is_not_exported():
    import keras

    features = keras.Input((WIDTH,))
    x = keras.layers.Dense(WIDTH, "elu", name="hidden")(features)
    head = keras.Model(features, keras.layers.Dense(3, name="head")(x))

    with pytest.raises(ExportError, match="EluGrad"):
        trainer_graph(part(head), MODEL, TASK, [v.path for v in head.weights], BATCH)


def test_what_is_frozen_in_a_head_is_a_constant_of_its_graph(tmp_path):
    head, file = dense_head(), tmp_path / "trainer.tflite"
    head.layers[-1].bias.assign([1, -2, 3])
    file.write_bytes(trainer_graph(part(head), MODEL, TASK, ["head/kernel"], BATCH))
    weights = {"head/kernel": np.ones((WIDTH, 3), np.float32)}

    error = require_same_training(
        litert_graph(file, part(head), TASK, list(weights)),
        keras_graph(part(head), MODEL, list(weights)),
        start(weights),
    )

    assert error < 1e-5


def test_a_module_that_forgot_the_keras_variables_is_refused(tmp_path):
    import tensorflow as tf

    head = dense_head()
    rows = np.random.default_rng(0).random((8, WIDTH), np.float32)
    inputs = [{"features": row} for row in rows]
    module = tf.Module()
    module.model = head  # looks tracked, and is not

    def serve(inputs):
        return {"outputs": head(inputs, training=False)}

    specs = {"inputs": tf.TensorSpec([1, WIDTH], tf.float32, "inputs")}
    forgotten = tmp_path / "forgotten.tflite"
    forgotten.write_bytes(convert({"serving_default": (serve, specs)}, module))
    faithful = tmp_path / "faithful.tflite"
    faithful.write_bytes(stage_graphs(part(head), inputs, TASK, first=False, last=True)[0])

    def outputs(file):
        specs = {"features": TensorSpec(shape=(WIDTH,))}
        return litert_outputs(StagedModel([file], specs, TASK.outputs), inputs)

    assert require_same_outputs(part(head), inputs, outputs(faithful), "x") < 1e-5
    with pytest.raises(ExportError, match=r"forgotten\.tflite: outputs are off by"):
        require_same_outputs(part(head), inputs, outputs(forgotten), forgotten.name)


@pytest.mark.parametrize("broken", [np.nan, 0.0])
def test_int8_outputs_without_signal_are_refused(broken):
    fp32 = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)

    assert require_usable_int8({"y": fp32}, {"y": fp32 + 0.01}, "int8") < 0.1
    with pytest.raises(ExportError, match="int8: outputs are off by"):
        require_usable_int8({"y": fp32}, {"y": np.full_like(fp32, broken)}, "int8")


@pytest.mark.parametrize(("answered", "refused"), [(1.0, False), (1.1, True)])
def test_answers_that_are_not_read_from_the_maps_as_keras_reads_them_are_refused(answered, refused):
    maps = {"m": np.ones((2, 3), np.float32)}
    step = Step(1.0, {}, maps, {"a": answered * maps["m"]})
    task = Task(inputs={}, targets={}, outputs={}, measures={}, answer="boxes")
    start = Start(weights={}, features={}, task=task, batch_size=2, answer=lambda m: {"a": m["m"]})
    graphs = lambda *_: step, lambda *_: Step(1.0, {}, maps)
    if refused:
        with pytest.raises(ExportError, match=r"outputs in step 0 are off by 1\.0e-01"):
            require_same_training(*graphs, start)
    else:
        assert require_same_training(*graphs, start) == 0.0
