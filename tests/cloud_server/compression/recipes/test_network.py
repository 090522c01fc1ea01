"""Classifiers of Keras files, and the students made of them."""

import zipfile

import numpy as np
import pytest

keras = pytest.importorskip("keras")
from keras import layers  # noqa: E402

from cloud_server.compression.recipes.network import (  # noqa: E402
    Classifier,
    read_classifier,
    student_of,
    write_classifier,
)
from cloud_server.compression.recipes.recipe import Distill  # noqa: E402
from fleet_model.errors import CheckpointError, SettingsError  # noqa: E402

LABELS, SIDE = ("a", "b", "c"), 32


def network(last=(), side=SIDE, labels=3):
    keras.utils.set_random_seed(0)
    image = keras.Input((side, side, 3))
    x = layers.Conv2D(4, 3, name="first")(layers.Rescaling(1 / 128)(image))
    x = layers.Conv2D(5, 3, name="second")(x)
    x = layers.Dense(labels)(layers.GlobalAveragePooling2D()(x))
    for layer in last:
        x = layer(x)
    return keras.Model(image, x)


def answer(model):
    pictures = np.random.default_rng(0).uniform(0, 255, (4, SIDE, SIDE, 3)).astype(np.float32)
    return np.asarray(model(pictures, training=False))


def test_a_file_keeps_labels_and_answers_and_no_training(tmp_path):
    model = network()
    model.compile(optimizer="adam", loss="mse")
    write_classifier(Classifier(model, LABELS), tmp_path / "a.keras")
    found = read_classifier(tmp_path / "a.keras")
    assert found.labels == LABELS
    assert found.size == SIDE
    assert not found.model.compiled
    np.testing.assert_array_equal(answer(found.model), answer(model))
    renamed = read_classifier(tmp_path / "a.keras", ("x", "y", "z"))
    assert renamed.labels == ("x", "y", "z")


@pytest.mark.parametrize("kind", ["layer", "activation", "within"])
def test_of_a_network_that_ends_in_softmax_logits_are_taken(tmp_path, kind):
    last = {"layer": layers.Softmax(), "activation": layers.Activation("softmax"),
            "within": layers.Dense(3, activation="softmax")}  # fmt: skip
    model = network([last[kind]])
    model.save(tmp_path / "a.keras")
    logits = answer(read_classifier(tmp_path / "a.keras", LABELS).model)
    assert np.abs(logits.sum(axis=1) - 1).min() > 1e-3
    exp = np.exp(logits)
    np.testing.assert_allclose(exp / exp.sum(1, keepdims=True), answer(model), rtol=1e-4)


def test_a_new_head_takes_the_place_of_what_follows_the_last_map(tmp_path):
    model = network(labels=7)
    model.save(tmp_path / "a.keras")
    with pytest.raises(SettingsError, match="answers 7 labels, and the file does not name them"):
        read_classifier(tmp_path / "a.keras")
    with pytest.raises(SettingsError, match="answers 7 labels, and 3 are named"):
        read_classifier(tmp_path / "a.keras", LABELS)
    found = read_classifier(tmp_path / "a.keras", LABELS, new_head=True)
    assert found.model.output_shape == (None, 3)
    kernel = found.model.get_layer("second").get_weights()[0]
    np.testing.assert_array_equal(kernel, model.get_layer("second").get_weights()[0])


def test_students(tmp_path):
    made = Classifier(network(), LABELS)
    assert student_of(made, Distill(do="distill")) is made
    cut = student_of(made, Distill(do="distill", until="first")).model
    assert [layer.name for layer in cut.layers][2:] == ["first", "new_pool", "new_head"]
    with pytest.raises(
        SettingsError, match=r"has no layer 'third' .*; its last are rescaling.*, first, second"
    ):
        student_of(made, Distill(do="distill", until="third"))
    how = Distill(do="distill", student="mobilenet-v2", width=0.35)
    small = student_of(made, how).model
    assert small.input_shape == (None, SIDE, SIDE, 3)
    assert small.output_shape == (None, 3)
    # MobileNetV2 of this width has 410,208 numbers before its head (its 1.0 has 2,257,984).
    assert small.count_params() == 410_208 + 1280 * 3 + 3
    again = student_of(made, how).model
    np.testing.assert_array_equal(again.get_weights()[0], small.get_weights()[0])


def test_what_is_no_classifier_of_pictures_is_refused(tmp_path):
    def refused(model, words):
        model.save(tmp_path / "a.keras")
        with pytest.raises(CheckpointError, match=words):
            read_classifier(tmp_path / "a.keras", LABELS)

    text = keras.Input((8,))
    refused(keras.Model(text, layers.Dense(3)(text)), "expected one picture")
    image = keras.Input((SIDE, SIDE, 3))
    refused(keras.Model(image, layers.Conv2D(3, 1)(image)), "new_head = true .* puts a layer")
    refused(network(side=16), "takes pictures of 16 x 16 pixels, expected a square of 32 to 1024")
    (tmp_path / "a.keras").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"a.keras: is no .keras file, or damaged"):
        read_classifier(tmp_path / "a.keras", LABELS)
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(CheckpointError, match=r"a.keras: Keras does not load it"):
        read_classifier(tmp_path / "a.keras", LABELS)
