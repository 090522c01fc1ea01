"""A torch backend writes trainers and engines, and lets nothing pass that computes otherwise."""

import json
import shutil

import numpy as np
import onnx
import pytest
from tiny_encoders import texts, write_encoder

from cloud_server.models.export import BundleJob, FileJob, InitJob
from cloud_server.models.export.bundle_directory import write_bundle_directory
from cloud_server.models.export.model_directory import write_model_directory
from cloud_server.models.export.model_file import write_model_file
from cloud_server.state.checkpoints import Checkpoints
from fleet_model.bundle import WorkloadSpec, parse_manifest, parse_trainer
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import BundleError, CheckpointError, ExportError, SettingsError
from fleet_model.litert.runtime import ONNX_RUNTIME, Runtime
from fleet_model.types import Checkpoint
from fleet_model.weights import read_weights, write_weights

pytestmark = pytest.mark.torch
LABELS, LENGTH = ["bad", "good"], 16


def quiet(line):
    del line


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder") / "roberta", "roberta")


def job(folder, encoder, scope="head", labels=LABELS, **others):
    config = {"labels": labels, "max_length": LENGTH}
    spec = WorkloadSpec(name="text-classifier", config=config)
    return InitJob(
        workload=spec, trainable=scope, directory=folder, checkpoint=encoder, batch_size=4, **others
    )


def bundle_of(model, folder, weights=None):
    write_bundle_directory(
        BundleJob(
            model=model,
            weights=weights or model / "weights.safetensors",
            version=3,
            created_at="2026-12-01T00:00:00Z",
            directory=folder,
        ),
        quiet,
    )
    return folder


@pytest.fixture(scope="module", params=["head", "all"])
def made(request, encoder, tmp_path_factory):
    """Return (model directory, bundle directory)."""
    root = tmp_path_factory.mktemp(request.param)
    write_model_directory(job(root / "model", encoder, request.param), quiet)
    return root / "model", bundle_of(root / "model", root / "bundle")


def torch_logits(model, text):
    """Return what the model itself says, by the torch half alone."""
    import torch

    from fleet_model.torch.tensors import slots
    from fleet_model.workload import rebuild
    from fleet_model.workloads.text_classifier.torch_model import TextClassifierModel

    spec = parse_trainer((model / "trainer.json").read_bytes())
    workload = rebuild(spec.workload, model)
    definition = TextClassifierModel(workload)
    built = definition.build(model)
    values = {
        **read_weights(model / "frozen.safetensors"),
        **read_weights(model / "weights.safetensors"),
    }
    found = slots(built, definition.path)
    assert found.keys() == values.keys()
    for path, slot in found.items():
        slot.assign(values[path])
    inputs = workload.encode(text).inputs
    with torch.no_grad():
        whole = definition.cut(built, [""]).rest
        return whole.module(*(torch.from_numpy(inputs[n][None]) for n in whole.inputs)).numpy()[0]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_engine_says_what_the_model_says(made, precision):
    model, bundle = made
    engine = TFLiteEngine(bundle, precision, 1)
    assert engine.runtime == ONNX_RUNTIME
    engine.warm_up()
    for text, _ in texts(8):
        answer = engine.answer(text)
        expected = torch_logits(model, text)
        limit = 1e-5 if precision == "fp32" else 0.3
        np.testing.assert_allclose(answer.outputs["logits"], expected, atol=limit)
        assert answer.predictions[0].label in LABELS


def test_a_client_fetches_the_tokenizer_with_its_engine(made):
    model, bundle = made
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    assert manifest.workload_files == ("tokenizer.json",)
    for precision in ("fp32", "int8"):
        assert "tokenizer.json" in manifest.needed(precision)
    spec = parse_trainer((model / "trainer.json").read_bytes())
    assert spec.parts == {"torch": ("frozen.safetensors", "config.json", "tokenizer.json")}
    (bundle / "tokenizer.json").rename(bundle / "away.json")
    try:
        with pytest.raises(BundleError, match=r"tokenizer\.json: missing"):
            TFLiteEngine(bundle)
    finally:
        (bundle / "away.json").rename(bundle / "tokenizer.json")


def test_robots_get_neither_names_nor_precision_of_the_folder(encoder, tmp_path):
    folder = shutil.copytree(encoder, tmp_path / "encoder")
    plain = json.loads((folder / "config.json").read_text())
    strange = {"_name_or_path": "/home/me/x", "id2label": {"0": "a"}, "dtype": "float16"}
    (folder / "config.json").write_text(json.dumps({**plain, **strange}))
    write_model_directory(job(tmp_path / "model", folder), quiet)
    found = json.loads((tmp_path / "model" / "config.json").read_text())
    assert not {*strange, "label2id"} & found.keys()
    assert found == {name: plain[name] for name in found}
    assert found["hidden_size"] == 16


def test_another_runtime_is_refused(made):
    with pytest.raises(BundleError, match="runs by ONNX Runtime alone"):
        TFLiteEngine(made[1], runtime=Runtime("compiled"))


def test_a_new_version_of_a_head_costs_the_head_alone(encoder, tmp_path):
    model = tmp_path / "model"
    write_model_directory(job(model, encoder), quiet)
    first = parse_manifest((bundle_of(model, tmp_path / "a") / "manifest.json").read_bytes())
    weights = dict(read_weights(model / "weights.safetensors"))
    write_weights(tmp_path / "w.safetensors", {n: w + 1 for n, w in weights.items()})
    second = bundle_of(model, tmp_path / "b", tmp_path / "w.safetensors")
    manifest = parse_manifest((second / "manifest.json").read_bytes())
    changed = {n for n, e in manifest.files.items() if e != first.files[n]}
    assert changed == {"head.onnx"}
    assert manifest.files["head.onnx"].size_bytes < 20_000
    assert set(manifest.metrics) == {"fp32_error", "int8_error", "int8_agreement"}
    assert manifest.metrics["fp32_error"] < 1e-5


@pytest.mark.parametrize("name", ["trunk.onnx", "head.onnx"])
def test_a_file_that_computes_something_else_is_not_published(encoder, tmp_path, name, monkeypatch):
    from cloud_server.models.torch import backend

    model = tmp_path / "model"
    write = backend.write_onnx

    def spoilt(part, inputs, samples, file, *others):
        size = write(part, inputs, samples, file, *others)
        if file.name == name:
            graph = onnx.load(file)
            for tensor in graph.graph.initializer:
                values = onnx.numpy_helper.to_array(tensor)
                if values.dtype == np.float32 and values.ndim == 2:
                    turned = np.ascontiguousarray(values[::-1])
                    tensor.CopyFrom(onnx.numpy_helper.from_array(turned, tensor.name))
            onnx.save_model(graph, file)
        return size

    def publish():
        write_model_directory(job(model, encoder), quiet)
        bundle_of(model, tmp_path / "bundle")

    monkeypatch.setattr(backend, "write_onnx", spoilt)
    with pytest.raises(ExportError, match=r"are off by .* the file is not used"):
        publish()
    assert not (tmp_path / "bundle" / "manifest.json").exists()


def test_int8_of_which_nothing_is_left_is_not_published():
    from cloud_server.models.torch.onnx_files import require_usable_int8

    rng = np.random.default_rng(0)
    fp32 = {"logits": rng.normal(0, 5, (16, 2))}
    assert require_usable_int8(fp32, {"logits": fp32["logits"] + 0.1}, "x") < 0.05
    with pytest.raises(ExportError, match="off by"):
        require_usable_int8(fp32, {"logits": rng.normal(0, 5, (16, 2))}, "x")
    # A head that has learned nothing says next to nothing: its noise is no reason.
    new = {"logits": rng.normal(0, 0.01, (16, 2))}
    assert require_usable_int8(new, {"logits": new["logits"] + 0.01}, "x") < 0.05


def test_the_whole_model_is_a_file_for_other_programs(made, tmp_path):
    import onnxruntime

    model, _ = made
    file = tmp_path / "aside" / "model.onnx"
    file.parent.mkdir()
    result = write_model_file(
        FileJob(model=model, weights=model / "weights.safetensors", kind="onnx", file=file), quiet
    )
    assert result.metrics["error"] < 1e-5
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert {one.name for one in session.get_inputs()} == {
        "inputs_attention_mask", "inputs_input_ids"
    }  # fmt: skip
    assert json.loads(session.get_modelmeta().custom_metadata_map["fleetlearn.labels"]) == LABELS
    with pytest.raises(
        SettingsError, match="'tflite' can be written of this workload; choose onnx"
    ):
        write_model_file(
            FileJob(
                model=model, weights=model / "weights.safetensors", kind="tflite",
                file=tmp_path / "model.tflite",
            ),
            quiet,
        )  # fmt: skip


def test_weights_of_another_model_are_refused(made, tmp_path):
    model, _ = made
    wrong = {n: w[..., :1] for n, w in read_weights(model / "weights.safetensors").items()}
    write_weights(tmp_path / "w.safetensors", wrong)
    with pytest.raises(CheckpointError, match="has shape"):
        bundle_of(model, tmp_path / "bundle", tmp_path / "w.safetensors")


def test_a_label_is_added_and_all_others_keep_their_rows(made, encoder, tmp_path):
    """As `cloud-server labels` does: from a checkpoint, the frozen part as it was."""
    model, _ = made
    server = tmp_path / "server"
    shutil.copytree(model, server / "model")
    (server / "checkpoints").mkdir()
    weights = read_weights(model / "weights.safetensors")
    Checkpoints(server / "checkpoints").save(Checkpoint(version=0, weights=weights))
    spec = parse_trainer((model / "trainer.json").read_bytes())
    folder = tmp_path / "new"
    told = []
    write_model_directory(
        job(
            folder, server / "checkpoints" / "000000", spec.trainable,
            ["good", "new", "bad"], frozen=server / "model",
        ),
        told.append,
    )  # fmt: skip
    before, after = (dict(read_weights(f / "weights.safetensors")) for f in (model, folder))
    np.testing.assert_array_equal(after["head/kernel"][:, [2, 0]], before["head/kernel"])
    np.testing.assert_allclose(
        after["head/kernel"][:, 1], before["head/kernel"].mean(1), rtol=1e-5, atol=1e-7
    )
    assert any("new, to begin with the mean of the others: new" in line for line in told)
    same = set(before) - {"head/kernel", "head/bias"}
    assert all(np.array_equal(before[name], after[name]) for name in same)


def test_a_fleet_may_start_from_another_fleets_checkpoint(made, tmp_path):
    model, _ = made
    server = tmp_path / "server"
    shutil.copytree(model, server / "model")
    (server / "checkpoints").mkdir()
    weights = dict(read_weights(model / "weights.safetensors"))
    weights["head/bias"] = weights["head/bias"] + 1
    Checkpoints(server / "checkpoints").save(Checkpoint(version=0, weights=weights))
    write_model_directory(job(tmp_path / "new", server, "last-1"), quiet)
    found = read_weights(tmp_path / "new" / "weights.safetensors")
    np.testing.assert_array_equal(found["head/bias"], weights["head/bias"])
    assert (tmp_path / "new" / "config.json").read_bytes() == (model / "config.json").read_bytes()
    alone = tmp_path / "alone.safetensors"
    shutil.copy(server / "checkpoints" / "000000" / "weights.safetensors", alone)
    with pytest.raises(BundleError, match=r"tokenizer\.json: missing"):
        write_model_directory(job(tmp_path / "other", alone), quiet)


def test_a_head_that_looks_at_all_tokens_is_not_cut_off(tmp_path):
    """ModernBERT may take the mean of all tokens; of the first one it would say something else."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    mean = write_encoder(
        tmp_path / "mean", "modernbert", **sizes, num_hidden_layers=2, classifier_pooling="mean"
    )
    with pytest.raises(CheckpointError, match="'head' cannot be trained alone in this model: "):
        write_model_directory(job(tmp_path / "model", mean), quiet)


def test_without_a_folder_it_says_what_to_name(tmp_path):
    with pytest.raises(SettingsError, match=r"--checkpoint FOLDER, with tokenizer\.json"):
        write_model_directory(job(tmp_path / "model", None), quiet)
