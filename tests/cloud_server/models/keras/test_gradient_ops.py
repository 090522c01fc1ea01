"""Layers in other operators against Keras itself, and their gradients in LiteRT."""

import numpy as np
import pytest

from cloud_server.models.keras.gradient_ops import written
from cloud_server.models.keras.litert_graphs import trainer_graph
from cloud_server.models.keras.parity_gate import (
    Start,
    keras_graph,
    litert_graph,
    require_builtin_operators,
    require_same_training,
)
from fleet_model.bundle import TensorSpec
from fleet_model.keras.stages import Part
from fleet_model.workloads.image_classifier import ImageClassifier
from fleet_model.workloads.image_classifier.keras_model import ImageClassifierModel

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
WORKLOAD = ImageClassifier(["circle", "square", "star"])
TASK, MODEL = WORKLOAD.task, ImageClassifierModel(WORKLOAD)
BATCH = 3


def layers():
    from keras import layers

    return {
        "1x1": layers.Conv2D(4, 1),
        "3x3": layers.Conv2D(4, 3, padding="same", activation="relu"),
        "even window": layers.Conv2D(4, (2, 4), padding="same"),
        "valid": layers.Conv2D(4, 3, use_bias=False),
        "stride 2": layers.Conv2D(4, 3, 2, "same", activation="relu"),
        "stride 3, valid": layers.Conv2D(4, 2, 3),
        "strides that differ": layers.Conv2D(4, 3, (1, 2), "same"),
        "depthwise": layers.DepthwiseConv2D(3, padding="same"),
        "depthwise, stride 2": layers.DepthwiseConv2D(5, 2, "same", use_bias=False),
        "normalization": layers.BatchNormalization(),
        "without gamma": layers.BatchNormalization(scale=False),
        "relu6": layers.ReLU(6.0),
        "relu": layers.ReLU(),
    }


@pytest.mark.parametrize("name", layers())
@pytest.mark.parametrize("size", [(7, 6), (8, 9)])
def test_a_layer_computes_what_keras_computes(name, size):
    import keras
    import tensorflow as tf

    rng = np.random.default_rng(4)
    inputs = keras.Input((*size, 2))
    model = keras.Model(inputs, layers()[name](inputs))
    for variable in model.variables:
        variable.assign(rng.uniform(0.1, 2, variable.shape))
    part = Part(model, ("features",), ("logits",))
    trained = [v.path for v in model.variables if "normalization" not in v.path]
    answer = written(part, trained)
    rows = rng.normal(0, 4, (BATCH, *size, 2)).astype(np.float32)
    values = {v.path: tf.constant(v.numpy()) for v in model.variables if v.path in trained}
    found = answer(values, {"features": rows})["logits"]
    assert found.shape == model(rows).shape
    assert found.numpy() == pytest.approx(model(rows, training=False).numpy(), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", [*layers(), "depthwise 3 x 5", "side by side"])
@pytest.mark.parametrize("size", [(7, 6), (8, 9)])
def test_its_gradient_is_that_of_keras(name, size):
    """Of kernel, bias and picture; whole numbers, so that ReLUs are asked at their bends, too."""
    import keras
    import tensorflow as tf

    rng = np.random.default_rng(4)
    inputs = keras.Input((*size, 20))
    if name == "side by side":
        outputs = [keras.layers.Conv2D(count, 1)(inputs) for count in (3, 2, 8)]
    elif name == "depthwise 3 x 5":
        outputs = [keras.layers.DepthwiseConv2D((3, 5), padding="same")(inputs)]
    else:
        outputs = [layers()[name](inputs)]
    model = keras.Model(inputs, outputs)
    for variable in model.variables:
        variable.assign(rng.integers(1, 4, variable.shape) / 2)
    part = Part(model, ("features",), tuple(f"out_{i}" for i in range(len(outputs))))
    trained = [v for v in model.variables if "normalization" not in v.path]
    answer = written(part, [v.path for v in trained])
    rows = tf.constant(rng.integers(-6, 7, (BATCH, *size, 20)), tf.float32)
    values = {v.path: tf.constant(v.numpy()) for v in trained}
    slopes = [rng.normal(size=(BATCH, *one.shape[1:])).astype(np.float32) for one in outputs]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([rows, *values.values()])
        ours = list(answer(values, {"features": rows}).values())
        ours = sum(tf.reduce_sum(o * s) for o, s in zip(ours, slopes, strict=True))
        theirs = tf.nest.flatten(model(rows, training=False))
        theirs = sum(tf.reduce_sum(o * s) for o, s in zip(theirs, slopes, strict=True))
    found = tape.gradient(ours, [rows, *values.values()])
    for a, b in zip(found, tape.gradient(theirs, [rows, *(v.value for v in trained)]), strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


@pytest.mark.parametrize(
    ("name", "slopes"), [("relu6", [0, 0, 1, 1, 1, 0, 0]), ("relu", [0, 0, 1, 1, 1, 1, 1])]
)
def test_the_slope_of_a_bend_is_1_inside_and_0_outside(name, slopes):
    """In a graph that TensorFlow has rearranged, and in LiteRT."""
    import keras
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    inputs = keras.Input((7,))
    model = keras.Model(inputs, layers()[name](inputs))
    answer = written(Part(model, ("features",), ("logits",)), ())

    @tf.function(input_signature=[tf.TensorSpec((1, 7))])
    def gradient(rows):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            total = tf.reduce_sum(answer({}, {"features": rows})["logits"])
        return tape.gradient(total, rows)

    rows = np.array([[-3, 0, 1e-6, 3, np.nextafter(np.float32(6), 0), 6, 1e30]], np.float32)
    assert gradient(rows).numpy().tolist() == [slopes]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([gradient.get_concrete_function()])
    robot = Interpreter(model_content=converter.convert())
    robot.allocate_tensors()
    robot.set_tensor(robot.get_input_details()[0]["index"], rows)
    robot.invoke()
    assert robot.get_tensor(robot.get_output_details()[0]["index"]).tolist() == [slopes]


def test_the_gradient_of_a_small_network_needs_no_operator_that_robots_lack(tmp_path):
    """Everything at once: strides, windows, a depthwise kernel, frozen normalization, bends."""
    import keras
    from keras import layers

    x = features = keras.Input((9, 8, 2))
    x = layers.Conv2D(4, 3, 2, "same", activation="relu", name="first")(x)
    x = layers.BatchNormalization(name="norm")(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Conv2D(6, 1, name="second")(layers.ReLU(6.0)(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(5, "relu", name="hidden")(x)
    head = keras.Model(features, layers.Dense(3, name="head")(x))
    part = Part(head, ("features",), ("logits",))
    rng = np.random.default_rng(1)
    for variable in head.variables:
        variable.assign(rng.uniform(0.1, 1, variable.shape))
    names = [v.path for v in head.trainable_variables if not v.path.startswith("norm/")]
    weights = {
        v.path: rng.normal(size=v.shape).astype(np.float32)
        for v in head.variables
        if v.path in names
    }
    content = trainer_graph(part, MODEL, TASK, list(weights), BATCH)
    require_builtin_operators(content, "trainer.tflite")
    file = tmp_path / "trainer.tflite"
    file.write_bytes(content)
    error = require_same_training(
        litert_graph(file, part, TASK, list(weights)),
        keras_graph(part, MODEL, list(weights)),
        Start(weights, {"features": TensorSpec(shape=(9, 8, 2))}, TASK, BATCH),
    )
    assert error < 1e-4
