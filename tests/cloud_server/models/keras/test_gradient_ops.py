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
