"""Exports of a server directory; the files of a framework are in export/test_model_file.py."""

import pytest

from cloud_server.models import model_file
from cloud_server.models.export import ExportResult
from cloud_server.models.model_file import export_model
from cloud_server.models.own_weights import read_named
from fleet_model.errors import CheckpointError, ExportError, SettingsError


def test_safetensors_hold_all_tensors_and_the_labels(server_dir, tmp_path):
    file = tmp_path / "model.safetensors"
    assert export_model(server_dir, None, "safetensors", file, print) == (1, None)
    own, kept = read_named(file), read_named(server_dir.checkpoints / "000001")
    assert own.labels == kept.labels == ("circle", "square", "star")
    assert {n: t.tobytes() for n, t in own.tensors.items()} == {
        n: t.tobytes() for n, t in kept.tensors.items()
    }


def test_a_file_gets_its_name_when_it_is_right(server_dir, tmp_path, monkeypatch):
    def run(job, progress):
        assert not (job.file.parent / "left by a kill").exists()
        job.file.parent.mkdir()
        job.file.write_bytes(b"graph")
        if job.file.parent.parent.name == "wrong":
            raise ExportError("it computes something else")
        return ExportResult(metrics={"error": 1e-6})

    monkeypatch.setattr(model_file, "run_export", run)
    file = tmp_path / "model.tflite"
    (tmp_path / ".model.tflite.new" / "left by a kill").mkdir(parents=True)
    assert export_model(server_dir, 1, "tflite", file, print) == (1, 1e-6)
    assert file.read_bytes() == b"graph"
    assert not (tmp_path / ".model.tflite.new").exists()
    (tmp_path / "wrong").mkdir()
    with pytest.raises(ExportError, match="something else"):
        export_model(server_dir, 1, "tflite", tmp_path / "wrong" / "model.tflite", print)
    assert list((tmp_path / "wrong").iterdir()) == []


@pytest.mark.parametrize(
    ("version", "name", "error", "words"),
    [
        (7, "m.tflite", CheckpointError, "version 7 is not kept; there are: 1"),
        (1, "m.onnx", SettingsError, r"expected a name that ends in \.tflite"),
        (1, "there.tflite", SettingsError, "is there already; name a new file"),
        (1, "none/m.tflite", SettingsError, "its folder is not there, or cannot be written"),
    ],
)
def test_what_would_fail_is_found_before_the_work(
    server_dir, tmp_path, version, name, error, words
):
    (tmp_path / "there.tflite").touch()
    with pytest.raises(error, match=words):
        export_model(server_dir, version, "tflite", tmp_path / name, print)
