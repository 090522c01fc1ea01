"""Causal language models of Hugging Face's layout: their weights, adapters, what answers cost."""

import json

import numpy as np
import pytest
from tiny_language_models import KINDS, PAIRS, WORDS, write_language_model

from fleet_model.adapters.spec import LoraSpec
from fleet_model.errors import CheckpointError, SettingsError, TrainingError
from fleet_model.types import Example, Instruction
from fleet_model.workloads.causal_lm import CausalLM

pytestmark = pytest.mark.torch
ROWS = [Instruction(prompt=prompt, answer=answer) for prompt, answer in PAIRS]


def model_of(folder, **config):
    from fleet_model.workloads.causal_lm.torch_model import CausalLMModel

    workload = CausalLM(**{"max_length": 20, "max_new_tokens": 5, **config})
    workload.read_files(folder)
    return workload, CausalLMModel(workload)


def batch_of(workload, rows=ROWS):
    encoded = [workload.encode(one).inputs for one in rows]
    return {name: np.stack([row[name] for row in encoded]) for name in encoded[0]}


def run(part, batch):
    import torch

    with torch.no_grad():
        found = part.module(*(torch.from_numpy(batch[name]) for name in part.inputs))
    return {name: tensor.numpy() for name, tensor in zip(part.outputs, found, strict=True)}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    tied = request.param == "qwen2"
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return write_language_model(folder, request.param, tie_word_embeddings=tied)


@pytest.fixture(scope="module")
def plain(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_an_answer_costs_what_transformers_says(folder, plain):
    import torch

    workload, definition = model_of(folder)
    part = definition.cut(definition.load(folder), []).rest
    batch = batch_of(workload)
    labels = np.where(batch["answer_mask"], batch["input_ids"], -100)
    for number in range(len(ROWS)):
        row = {name: rows[number : number + 1] for name, rows in batch.items()}
        with torch.no_grad():
            loss = plain(
                input_ids=torch.from_numpy(row["input_ids"]).long(),
                attention_mask=torch.from_numpy(row["attention_mask"]).long(),
                labels=torch.from_numpy(labels[number : number + 1]).long(),
            ).loss
        tokens = row["answer_mask"].sum()
        assert run(part, row)["nll"][0] == pytest.approx(float(loss) * tokens, rel=1e-5)
    together = run(part, definition.compact(batch))["nll"]
    np.testing.assert_allclose(together, run(part, batch)["nll"], rtol=1e-5)


def test_the_loss_is_the_mean_over_tokens():
    import torch

    from fleet_model.workloads.causal_lm.torch_model import CausalLMModel

    nll, tokens = torch.tensor([2.0, 9.0, 5.0]), torch.tensor([1, 3, 2])
    found = CausalLMModel(CausalLM()).loss(
        {"tokens": tokens}, {"nll": nll}, torch.tensor([1.0, 3.0, 0.0])
    )
    assert float(found) == pytest.approx(11 / 4)


def test_completions_are_those_of_transformers(folder, plain):
    import torch

    workload, definition = model_of(folder)
    model = definition.load(folder)
    found = run(definition.part(model, completes=True), batch_of(workload))["completion"]
    for one, row in zip(ROWS, found, strict=True):
        asked = workload.encode(Instruction(prompt=one.prompt)).inputs
        ids = torch.from_numpy(asked["input_ids"][: asked["attention_mask"].sum()])[None].long()
        whole = plain.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=2)
        assert [n for n in row if n >= 0] == whole[0, ids.shape[1] :].tolist()
    assert set(run(definition.cut(model, []).rest, batch_of(workload))["completion"].ravel()) == {
        -1
    }


def test_the_base_travels_as_one_file(folder, plain, tmp_path):
    import torch

    _, definition = model_of(folder)
    size = definition.save(definition.load(folder), tmp_path / "base_model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    built = definition.build(tmp_path).state_dict()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, built[name]), name
    whole = sum(p.numel() for p in plain.parameters()) * 4
    assert whole <= size < whole + 10_000, "a tied tensor lies in it once"


def test_a_base_in_half_precision_takes_half(folder, tmp_path):
    _, definition = model_of(folder, dtype="bfloat16")
    _, exact = model_of(folder)
    half, whole = (d.save(d.load(folder), tmp_path / "base") for d in (definition, exact))
    assert half < 0.7 * whole


def test_adapters_are_those_of_peft(folder, plain, tmp_path):
    """With A and B of peft's own, and a residual of a rule, an answer costs the same."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from fleet_model.torch.adapters import LayerAdapters
    from fleet_model.workloads.causal_lm.peft_files import write_adapter

    workload, definition = model_of(folder)
    model = definition.load(folder)
    targets = {p: definition_shape(model, p) for p in definition.trainable(model, "lora-all")}
    spec = LoraSpec(rank=2, alpha=3.0, targets=targets)
    random = np.random.default_rng(0)
    shapes = {**spec.factors, **dict(list(spec.residuals.items())[:2])}
    weights = {n: random.normal(0, 0.1, s).astype(np.float32) for n, s in shapes.items()}
    adapters = LayerAdapters(model, definition.path, spec)
    for name, slot in adapters.slots.items():
        slot.assign(weights[name])
    adapters.set_residuals(weights)
    batch = batch_of(workload)
    ours = run(definition.cut(model, []).rest, batch)["nll"]
    write_adapter(spec, weights, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(folder)
    theirs = PeftModel.from_pretrained(base, tmp_path).eval()
    part = definition.part(theirs, completes=False)
    np.testing.assert_allclose(ours, run(part, batch)["nll"], rtol=1e-4)
    merged = definition.part(theirs.merge_and_unload(), completes=False)
    np.testing.assert_allclose(ours, run(merged, batch)["nll"], rtol=1e-3)
    before = run(definition.part(plain, completes=False), batch)["nll"]
    assert np.abs(ours - before).max() > 0.1
    adapters.set_residuals({})
    assert torch.is_tensor(next(model.parameters()))
    assert np.abs(run(definition.cut(model, []).rest, batch)["nll"] - ours).max() > 1e-3


def definition_shape(model, path):
    layer = model.get_submodule(path.removesuffix("/kernel").replace("/", "."))
    return (layer.in_features, layer.out_features)


def test_scopes_are_layers_of_the_model(folder):
    _, definition = model_of(folder)
    model = definition.load(folder)
    some = definition.trainable(model, "lora")
    assert {path.rpartition("/")[0].rpartition("/")[2] for path in some} == {"q_proj", "v_proj"}
    every = definition.trainable(model, "lora-all")
    assert len(some) == 4
    assert len(every) == 14
    assert not [path for path in every if "head" in path]
    for scope in ("head", "all", ""):
        with pytest.raises(SettingsError, match=r"choose lora .* or lora-all"):
            definition.trainable(model, scope)


def test_an_adapter_of_another_model_is_refused(folder):
    from fleet_model.torch.adapters import LayerAdapters

    _, definition = model_of(folder)
    for targets, words in (({"a/kernel": (2, 2)}, "no such layer"), ({}, "")):
        path = definition.trainable(definition.load(folder), "lora")[0]
        spec = LoraSpec(rank=1, alpha=1, targets=targets or {path: (3, 3)})
        with pytest.raises(TrainingError, match=words or r"is to have an adapter; .* \(16, 16\)"):
            LayerAdapters(definition.load(folder), definition.path, spec)


def change_config(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"auto_map": {"AutoConfig": "x.Y"}}, "code of its own"),
        ({"model_type": "nothing-like-it"}, "nothing-like-it"),
        ({"vocab_size": 10}, f"knows 10 tokens, tokenizer.json {len(WORDS)}; they do not|shape"),
        ({"intermediate_size": 8}, "of the right shape"),
        ({"num_hidden_layers": 3}, "of the right shape, and"),
        ({"max_position_embeddings": 8}, "sees 8 tokens, max_length and max_new_tokens are 25"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "its weights are quantized"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, values, words):
    folder = write_language_model(tmp_path / "model")
    change_config(folder, **values)
    _, definition = model_of(folder)
    with pytest.raises(CheckpointError, match=words) as error:
        definition.load(folder)
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_a_folder_with_an_adapter_is_no_base(tmp_path):
    folder = write_language_model(tmp_path / "model")
    (folder / "adapter_config.json").write_text("{}")
    _, definition = model_of(folder)
    with pytest.raises(CheckpointError, match="holds an adapter of peft"):
        definition.load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_or_damaged_file_is_named(tmp_path, name):
    folder = write_language_model(tmp_path / "model")
    _, definition = model_of(folder)
    (folder / name).write_text("{")
    with pytest.raises(CheckpointError, match="model: "):
        definition.load(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json, or no \.safetensors"):
        definition.load(folder)


def test_a_damaged_base_is_told(tmp_path):
    folder = write_language_model(tmp_path / "model")
    _, definition = model_of(folder)
    (folder / "base_model.safetensors").write_bytes(b"{}")
    with pytest.raises(TrainingError, match=r"base_model\.safetensors: "):
        definition.build(folder)
    definition.save(definition.load(folder), folder / "base_model.safetensors")
    change_config(folder, intermediate_size=8)
    with pytest.raises(TrainingError, match=r"expected \(16, 8\)|expected \(8, 16\)"):
        definition.build(folder)


def test_an_example_without_an_answer_has_no_target(folder):
    workload, _ = model_of(folder)
    assert workload.target(Example(raw=ROWS[0], key="1")).weight == 2
