"""Adapters are published as files that peft loads, beside a base that travels once."""

import zipfile

import numpy as np
import pytest
from tiny_language_models import PAIRS, write_language_model

from cloud_server.models.adapters import AdapterPlan
from cloud_server.models.export import BundleJob, FileJob, InitJob
from cloud_server.models.export.bundle_directory import write_bundle_directory
from cloud_server.models.export.model_directory import write_model_directory
from cloud_server.models.export.model_file import write_model_file
from fleet_model.bundle import WorkloadSpec, parse_manifest, parse_trainer
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import BundleError, CheckpointError, ExportError, SettingsError
from fleet_model.litert.runtime import PYTORCH
from fleet_model.types import Instruction
from fleet_model.weights import read_weights, write_weights

pytestmark = pytest.mark.torch
BASE = "base_model.safetensors"


def quiet(line):
    del line


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_language_model(tmp_path_factory.mktemp("base") / "qwen2", "qwen2")


def job(folder, base, scope="lora", config=None, **others):
    spec = WorkloadSpec(
        name="causal-lm", config={"max_length": 20, "max_new_tokens": 5, **(config or {})}
    )
    plan = {"adapter": AdapterPlan(rank=2, alpha=4.0), "batch_size": 4, **others}
    return InitJob(workload=spec, trainable=scope, directory=folder, checkpoint=base, **plan)


def bundle_of(model, folder, weights):
    write_bundle_directory(
        BundleJob(
            model=model,
            weights=weights,
            version=3,
            created_at="2026-12-01T00:00:00Z",
            directory=folder,
        ),
        quiet,
    )
    return folder


@pytest.fixture(scope="module")
def made(base, tmp_path_factory):
    """Return (model directory, weights, bundle directory)."""
    root = tmp_path_factory.mktemp("made")
    write_model_directory(job(root / "model", base), quiet)
    random = np.random.default_rng(0)
    trained = {
        name: tensor + random.normal(0, 0.1, tensor.shape).astype(np.float32)
        for name, tensor in read_weights(root / "model" / "weights.safetensors").items()
    }
    write_weights(root / "w.safetensors", trained)
    return root / "model", root / "w.safetensors", bundle_of(root / "model", root / "b", root / "w.safetensors")  # fmt: skip  # noqa: E501


def test_only_a_and_b_travel(made):
    spec = parse_trainer((made[0] / "trainer.json").read_bytes())
    assert set(spec.tensors) == set(spec.adapter.factors)
    assert spec.parts == {"torch": (BASE, "config.json", "tokenizer.json", "tokenizer_config.json")}
    assert "adapter" in spec.critical


def test_the_base_is_one_file_of_the_trainer_and_of_every_version(made):
    model, _, bundle = made
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    spec = parse_trainer((model / "trainer.json").read_bytes())
    assert manifest.files[BASE] == spec.files[BASE]
    assert (bundle / BASE).stat().st_ino == (model / BASE).stat().st_ino
    assert set(manifest.needed("fp32")) == {
        BASE, "adapter_model.safetensors", "adapter_config.json", "config.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert manifest.metrics["fp32_error"] < 1e-6


def test_peft_loads_what_is_published_and_answers_the_same(made, base):
    """As a user would: their own base, and the folder of the published version."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, _, bundle = made
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), bundle).eval()
    plain = AutoModelForCausalLM.from_pretrained(base).eval()
    engine = TFLiteEngine(bundle)
    ours = engine._model._model  # with its adapters
    inputs = engine.workload.encode(Instruction(prompt=PAIRS[0][0])).inputs
    ids = torch.from_numpy(inputs["input_ids"][: inputs["attention_mask"].sum()])[None].long()
    with torch.no_grad():
        expected, found, before = (m(input_ids=ids).logits for m in (theirs, ours, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found - before).max() > 0.01
    merged = theirs.merge_and_unload()
    with torch.no_grad():
        np.testing.assert_allclose(merged(input_ids=ids).logits, expected, rtol=1e-3, atol=1e-4)


def test_an_engine_completes_where_a_person_asks_and_not_where_it_is_measured(made):
    engine = TFLiteEngine(made[2])
    assert engine.runtime == PYTORCH
    engine.warm_up()
    asked = Instruction(prompt=PAIRS[0][0], answer=PAIRS[0][1])
    answer = engine.answer(asked)
    assert answer.predictions[0].text is not None
    run = engine.run(engine.workload.encode(asked).inputs)
    assert set(run["completion"]) == {-1}
    assert run["nll"] == answer.outputs["nll"] > 0


def test_a_residual_of_a_rule_is_published(made, tmp_path):
    model, weights, bundle = made
    spec = parse_trainer((model / "trainer.json").read_bytes())
    name, shape = next(iter(spec.adapter.residuals.items()))
    more = np.outer(np.arange(shape[0]), np.ones(shape[1])).astype(np.float32) / 100
    write_weights(tmp_path / "w.safetensors", {**read_weights(weights), name: more})
    moved = bundle_of(model, tmp_path / "b", tmp_path / "w.safetensors")
    asked = Instruction(prompt=PAIRS[0][0], answer=PAIRS[0][1])
    one, other = (TFLiteEngine(folder).answer(asked).outputs["nll"] for folder in (bundle, moved))
    assert abs(one - other) > 1e-3
    found = read_weights(moved / "adapter_model.safetensors")
    assert {t.shape[0] for n, t in found.items() if "lora_A" in n} == {3}


def test_a_file_that_computes_something_else_is_not_published(made, tmp_path, monkeypatch):
    from cloud_server.models.torch import adapting

    def spoilt(spec, weights, into):
        return write(spec, {n: w + 1 for n, w in weights.items()}, into)

    write = adapting.write_adapter
    monkeypatch.setattr(adapting, "write_adapter", spoilt)
    with pytest.raises(ExportError, match=r"are off by .* the file is not used"):
        bundle_of(made[0], tmp_path / "bundle", made[1])
    assert not (tmp_path / "bundle" / "manifest.json").exists()


def test_weights_that_are_no_number_are_not_published(made, tmp_path):
    huge = {n: w * np.float32(1e30) for n, w in read_weights(made[1]).items()}
    write_weights(tmp_path / "w.safetensors", huge)
    with pytest.raises(ExportError, match="answers what is no number"):
        bundle_of(made[0], tmp_path / "bundle", tmp_path / "w.safetensors")


def test_weights_of_another_model_are_refused(made, tmp_path):
    wrong = {n: w[..., :1] for n, w in read_weights(made[1]).items()}
    write_weights(tmp_path / "w.safetensors", wrong)
    with pytest.raises(CheckpointError, match="has shape"):
        bundle_of(made[0], tmp_path / "bundle", tmp_path / "w.safetensors")


def test_the_two_files_are_exported_as_a_zip(made, tmp_path):
    model, weights, bundle = made
    file = tmp_path / "aside" / "adapter.zip"
    file.parent.mkdir()
    job = FileJob(model=model, weights=weights, kind="peft", file=file)
    assert write_model_file(job, quiet).metrics["error"] < 1e-6
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            assert archive.read(name) == (bundle / name).read_bytes()
        assert len(archive.namelist()) == 2
    with pytest.raises(SettingsError, match="'onnx' can be written of adapters; choose peft"):
        write_model_file(
            FileJob(model=model, weights=weights, kind="onnx", file=tmp_path / "x.onnx"), quiet
        )


def test_a_merged_model_answers_as_the_adapter_does_with_what_a_rule_has_added(made, tmp_path):
    from transformers import AutoModelForCausalLM

    model, weights, _ = made
    spec = parse_trainer((model / "trainer.json").read_bytes())
    name, shape = next(iter(spec.adapter.residuals.items()))
    more = np.outer(np.arange(shape[0]), np.ones(shape[1])).astype(np.float32) / 100
    write_weights(tmp_path / "w.safetensors", {**read_weights(weights), name: more})
    engine = TFLiteEngine(bundle_of(model, tmp_path / "b", tmp_path / "w.safetensors"))
    (tmp_path / "aside").mkdir()
    file = tmp_path / "aside" / "merged.zip"
    job = FileJob(model=model, weights=tmp_path / "w.safetensors", kind="merged", file=file)
    assert write_model_file(job, quiet).metrics["error"] < 1e-5
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path / "merged")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    found, expected = (scores_of(one, engine) for one in (whole, engine._model._model))
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    assert (tmp_path / "merged" / "tokenizer.json").exists()


def scores_of(model, engine):
    import torch

    row = engine.workload.encode(Instruction(prompt=PAIRS[0][0])).inputs
    count = int(row["attention_mask"].sum())
    with torch.no_grad():
        return model(torch.from_numpy(row["input_ids"][:count])[None].long()).logits.numpy()


def test_patterns_choose_layers_and_nothing_else_is_trained(base, tmp_path):
    plan = AdapterPlan(rank=1, alpha=2.0, patterns=("*/o_proj/*",))
    write_model_directory(job(tmp_path / "model", base, "lora-all", adapter=plan), quiet)
    spec = parse_trainer((tmp_path / "model" / "trainer.json").read_bytes())
    assert len(spec.tensors) == 4
    assert all("/o_proj/kernel.lora_" in name for name in spec.tensors)
    plan = AdapterPlan(rank=1, alpha=2.0, patterns=("*/nothing/*",))
    with pytest.raises(SettingsError, match=r"no pattern of .* matches a layer; they are as"):
        write_model_directory(job(tmp_path / "other", base, "lora", adapter=plan), quiet)


def test_a_language_model_trains_adapters_or_nothing(base, tmp_path):
    with pytest.raises(SettingsError, match="trains adapters: add --adapter lora"):
        write_model_directory(job(tmp_path / "model", base, adapter=None), quiet)
    with pytest.raises(SettingsError, match=r"choose lora .* or lora-all"):
        write_model_directory(job(tmp_path / "other", base, "head"), quiet)


def test_a_client_without_the_base_says_so(made, tmp_path):
    import shutil

    bundle = shutil.copytree(made[2], tmp_path / "bundle")
    (bundle / BASE).unlink()
    with pytest.raises(BundleError, match=r"base_model\.safetensors: missing"):
        TFLiteEngine(bundle)
