"""Where a model may start; what a Keras model makes of it is in keras/test_checkpoint_import.py."""

import shutil

import numpy as np
import pytest

from cloud_server.models.own_weights import LABELS, parse_labels, read_named, require_kind
from cloud_server.state.checkpoints import Checkpoints
from fleet_model.errors import CheckpointError
from fleet_model.weights import read_metadata, read_weights, write_weights

pytestmark = pytest.mark.base


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.h5", r"old HDF5 format.*TensorFlow that wrote it.*model\.save\('model\.keras'\)"),
        ("model.tflite", "for inference alone; export the version again with --format safetensors"),
        ("model.onnx", "for inference alone"),
        ("model.pt", "of PyTorch; build the same model in Keras"),
        ("notes.txt", r"expected \.keras, \.npz, \.safetensors, or a folder of DIR/checkpoints"),
        ("folder/", "not a checkpoint of a server"),
    ],
)
def test_what_no_model_can_start_from_is_told_in_one_sentence(tmp_path, name, words):
    path = tmp_path / name
    path.mkdir() if name.endswith("/") else path.touch()
    with pytest.raises(CheckpointError, match=f"^{path.name}: .*{words}"):
        require_kind(path)
    with pytest.raises(CheckpointError, match=r"none\.keras: no such file"):
        require_kind(tmp_path / "none.keras")


@pytest.mark.parametrize("place", ["", "checkpoints/000001", "checkpoints/000001/{}"])
def test_a_servers_checkpoint_has_its_frozen_tensors_and_its_labels(server_dir, place):
    path = server_dir.root / place.format("weights.safetensors")
    require_kind(path)
    named = read_named(path)
    assert named.labels == ("circle", "square", "star")
    frozen = read_weights(server_dir.model / "frozen.safetensors")
    assert named.tensors.keys() == {"head/kernel", "head/bias"} | frozen.keys()
    checkpoint = Checkpoints(server_dir.checkpoints).latest()
    np.testing.assert_array_equal(named.tensors["head/bias"], checkpoint.weights["head/bias"])


def test_a_checkpoint_apart_from_its_server_directory_says_what_is_missing(server_dir, tmp_path):
    shutil.copytree(server_dir.checkpoints / "000001", tmp_path / "elsewhere" / "000001")
    with pytest.raises(CheckpointError, match=r"000001: what is not trained.*models export DIR"):
        read_named(tmp_path / "elsewhere" / "000001")


def test_frozen_tensors_that_were_changed_are_not_taken(server_dir):
    with (server_dir.model / "frozen.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        read_named(server_dir.checkpoints / "000001")


def test_an_export_says_what_its_rows_are_called(tmp_path):
    file = tmp_path / "model.safetensors"
    write_weights(file, {"a": np.ones(2, np.float32)}, {LABELS: '["x", "ü"]'})
    assert read_named(file).labels == ("x", "ü")
    assert read_metadata(file) == {LABELS: '["x", "ü"]'}
    np.testing.assert_array_equal(read_weights(file)["a"], [1, 1])


@pytest.mark.parametrize("text", ["", "[1, 2]", "{}", '"a"', "[" * 100_000])
def test_labels_that_are_none_are_not_known(text):
    assert parse_labels(text) == ()
