"""One version as a file for other programs, written and run with the network of 8 features."""

import json
import zipfile

import numpy as np
import pytest

from cloud_server.models.export import FileJob
from cloud_server.models.export.model_file import write_model_file
from cloud_server.models.own_weights import LABELS, Rows
from fleet_model.errors import ExportError, SettingsError

pytestmark = pytest.mark.tensorflow
OURS = ["star", "moon", "circle", "square"]  # the file has circle, square, star


def write(model_directory, kind, file):
    job = FileJob(
        model=model_directory, weights=model_directory / "weights.safetensors", kind=kind, file=file
    )
    return write_model_file(job, lambda line: None).metrics["error"]


def pictures():
    return np.random.default_rng(2).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(model_directory, tiny_module):
    """What Keras answers to the pictures."""
    from cloud_server.models.keras.backend import _set_weights
    from fleet_model.bundle import parse_trainer
    from fleet_model.keras.model import keras_model
    from fleet_model.workload import rebuild
    from fleet_model.workloads.image_classifier.networks import NETWORKS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "mobilenet-v2-035", tiny_module.tiny_network())
        spec = parse_trainer((model_directory / "trainer.json").read_bytes())
        model = keras_model(spec.workload, rebuild(spec.workload)).build(initial_weights=False)
    weights, frozen = (model_directory / f"{n}.safetensors" for n in ("weights", "frozen"))
    _set_weights(model, spec, weights, frozen)
    return model, np.asarray(model(pictures()))


def test_a_tflite_file_runs_alone_and_has_its_labels(model_directory, expected, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    file = tmp_path / "model.tflite"
    assert write(model_directory, "tflite", file) < 1e-5
    run = Interpreter(str(file)).get_signature_runner("serving_default")
    answers = [run(inputs=picture[None])["outputs"][0] for picture in pictures()]
    np.testing.assert_allclose(answers, expected[1], atol=1e-4)
    with zipfile.ZipFile(file) as archive:
        assert archive.read("labels.txt") == b"circle\nsquare\nstar\n"


def test_an_onnx_file_has_the_names_of_the_task_and_any_batch(model_directory, expected, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "model.onnx"
    assert write(model_directory, "onnx", file) < 1e-5
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (answers,) = session.run(["logits"], {"image": pictures()})
    np.testing.assert_allclose(answers, expected[1], atol=1e-4)
    labels = session.get_modelmeta().custom_metadata_map[LABELS]
    assert json.loads(labels) == ["circle", "square", "star"]


def test_a_keras_file_starts_another_fleet_with_rows_by_label(model_directory, expected, tmp_path):
    import keras

    from cloud_server.models.keras.checkpoint_import import import_checkpoint

    file = tmp_path / "model.keras"
    assert write(model_directory, "keras", file) == 0
    model = keras.saving.load_model(file)  # as anybody does
    np.testing.assert_array_equal(np.asarray(model(pictures())), expected[1])
    head = keras.layers.Dense(4, name="head")
    wider = keras.Model(model.inputs, head(model.layers[-2].output))

    told = import_checkpoint(file, wider, Rows(OURS, {"head/kernel": 1, "head/bias": 0}))

    kernel, mine = model.get_layer("head").kernel.numpy(), wider.get_layer("head").kernel.numpy()
    for label, row in (("star", 2), ("circle", 0), ("square", 1)):
        np.testing.assert_array_equal(mine[:, OURS.index(label)], kernel[:, row])
    assert told.endswith("new, to begin with the mean of the others: moon")


def test_a_file_that_computes_something_else_is_not_left_behind(
    model_directory, tmp_path, monkeypatch
):
    from cloud_server.models.keras import model_files

    def wrong(*_, **__):
        return {"logits": np.ones((16, 3), np.float32)}

    monkeypatch.setattr(model_files, "litert_outputs", wrong)
    with pytest.raises(ExportError, match=r"model\.tflite"):
        write(model_directory, "tflite", tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_missing_is_named(model_directory, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(SettingsError, match=r"needs tf2onnx: pip install 'fleetlearn\[onnx\]'"):
        write(model_directory, "onnx", tmp_path / "model.onnx")


def test_a_kind_that_nobody_knows_is_told(model_directory, tmp_path):
    with pytest.raises(SettingsError, match="choose keras, tflite, onnx"):
        write(model_directory, "pickle", tmp_path / "model.pickle")
