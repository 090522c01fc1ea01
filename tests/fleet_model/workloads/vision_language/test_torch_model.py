"""Models of LLaVA's layout: what is cut off and kept, and answers as transformers gives them."""

import json

import numpy as np
import pytest
from tiny_vision_language import COLORS, SIZE, TOKENS, write_picture, write_vision_language_model

from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.types import Instruction
from fleet_model.workloads.vision_language import VisionLanguage

pytestmark = pytest.mark.torch


def model_of(folder, **config):
    from fleet_model.workloads.vision_language.torch_model import VisionLanguageModel

    workload = VisionLanguage(
        **{"max_length": 24, "max_new_tokens": 5, "image_size": SIZE, **config}
    )
    workload.read_files(folder)
    return workload, VisionLanguageModel(workload)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_vision_language_model(tmp_path_factory.mktemp("llava") / "model")


@pytest.fixture(scope="module")
def plain(folder):
    from transformers import LlavaForConditionalGeneration

    return LlavaForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    pictures = tmp_path_factory.mktemp("pictures")
    shown = [str(write_picture(pictures / f"{color}.png", color)) for color in COLORS]
    return [
        *(Instruction(prompt="what color is it ?", answer=" a red sky", image=p) for p in shown),
        Instruction(prompt="say blue twice", answer=" blue blue"),
        Instruction(answer=" a green sky", image=shown[1]),
    ]


def batch_of(workload, rows):
    encoded = [workload.encode(one).inputs for one in rows]
    return {name: np.stack([row[name] for row in encoded]) for name in encoded[0]}


def run(part, batch):
    import torch

    with torch.no_grad():
        found = part.module(*(torch.from_numpy(np.array(batch[name])) for name in part.inputs))
    return {name: tensor.numpy() for name, tensor in zip(part.outputs, found, strict=True)}


def costs(plain, row):
    import torch

    ids = torch.from_numpy(row["input_ids"])[None].long()
    answer, mask = (torch.from_numpy(row[n])[None] for n in ("answer_mask", "attention_mask"))
    seen = {"pixel_values": torch.from_numpy(row["pixels"])[None]} if row["pixels"].any() else {}
    with torch.no_grad():
        labels = ids.masked_fill(answer == 0, -100)
        return float(plain(input_ids=ids, attention_mask=mask, labels=labels, **seen).loss)


def test_an_answer_costs_what_transformers_says_and_the_cut_changes_no_bit(folder, plain, asked):
    workload, definition = model_of(folder)
    model = definition.load(folder)
    trunk, rest = definition.cut(model, [])
    for one in asked:
        row = workload.encode(one).inputs
        batch = {name: tensor[None] for name, tensor in row.items()}
        whole = run(definition.part(model, completes=False), batch)["nll"]
        assert whole[0] == pytest.approx(costs(plain, row) * row["answer_mask"].sum(), rel=1e-5)
        features = run(trunk, batch)
        assert features["tower"].shape == (1, TOKENS if one.image else 0, 12)
        np.testing.assert_array_equal(run(rest, features)["nll"], whole)
    together = batch_of(workload, asked)
    expected = [costs(plain, workload.encode(one).inputs) for one in asked]
    found = run(rest, definition.compact(run(trunk, together)))["nll"]
    tokens = together["answer_mask"].sum(1)
    np.testing.assert_allclose(found / tokens, expected, rtol=1e-5)
    assert np.ptp(found[:3]) > 1e-2, "the picture counts"


def test_completions_are_those_of_transformers(folder, plain, asked):
    import torch

    workload, definition = model_of(folder)
    batch = batch_of(workload, asked)
    found = run(definition.part(definition.load(folder), completes=True), batch)["completion"]
    for one, row in zip(asked, found, strict=True):
        inputs = workload.encode(one).inputs
        count = int((inputs["attention_mask"] * (1 - inputs["answer_mask"])).sum())
        ids = torch.from_numpy(inputs["input_ids"][:count])[None].long()
        seen = {"pixel_values": torch.from_numpy(inputs["pixels"])[None]} if one.image else {}
        whole = plain.generate(
            input_ids=ids, max_new_tokens=5, do_sample=False, eos_token_id=2, pad_token_id=3, **seen
        )
        assert [n for n in row if n >= 0] == whole[0, count:].tolist()


def test_adapters_are_of_the_language_model_alone(folder):
    _, definition = model_of(folder)
    model = definition.load(folder)
    some, every = (definition.trainable(model, scope) for scope in ("lora", "lora-all"))
    assert {path.rsplit("/", 2)[1] for path in some} == {"q_proj", "v_proj"}
    assert (len(some), len(every)) == (4, 14)
    assert all(path.startswith("model/language_model/layers/") for path in every)
    with pytest.raises(SettingsError, match=r"choose lora .* or lora-all"):
        definition.trainable(model, "head")


def test_the_base_travels_as_one_file(folder, plain, tmp_path):
    import torch

    _, definition = model_of(folder)
    definition.save(definition.load(folder), tmp_path / "base_model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    built = definition.build(tmp_path).state_dict()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, built[name]), name


def test_a_folder_in_half_precision_begins_in_float32_and_a_base_in_half_where_asked(
    folder, tmp_path
):
    import torch
    from transformers import LlavaForConditionalGeneration

    half = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (tmp_path / "half" / name).write_bytes((folder / name).read_bytes())
    for dtype in ("float32", "bfloat16"):
        workload, definition = model_of(tmp_path / "half", dtype=dtype)
        model = definition.load(tmp_path / "half")
        assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
        batch = batch_of(workload, [Instruction(prompt="say blue", answer=" blue")])
        assert np.isfinite(run(definition.part(model, completes=True), batch)["nll"]).all()


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        ("text_config", {"vocab_size": 10}, "knows 10 tokens|of the right shape"),
        ("text_config", {"intermediate_size": 8}, "of the right shape"),
        ("text_config", {"max_position_embeddings": 20}, "sees 20 tokens, .* are 29 together"),
        ("vision_config", {"num_hidden_layers": 4}, "of the right shape, and"),
        ("", {"auto_map": {"AutoConfig": "x.Y"}}, "code of its own"),
        ("", {"vision_feature_layer": 9}, "its tower has no vision_feature_layer 9"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, part, values, words):
    folder = write_vision_language_model(tmp_path / "model")
    about = json.loads((folder / "config.json").read_text())
    (about[part] if part else about).update(values)
    (folder / "config.json").write_text(json.dumps(about))
    _, definition = model_of(folder)
    with pytest.raises(CheckpointError, match=words) as error:
        definition.load(folder)
    assert "\n" not in str(error.value)


def test_memory_is_told_of_what_config_leaves_out(tmp_path):
    """config.json of the model of 7 B says of its language model what differs from Llama alone."""
    from fleet_model.workloads.causal_lm.memory import memory_mb

    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llava", "text_config": {"model_type": "llama"}})
    )
    whole = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    told = memory_mb(tmp_path, 14_000_000_000, 16_777_216, 1, 1024)
    (tmp_path / "config.json").write_text(json.dumps({**whole, "vocab_size": 32000}))
    assert told == memory_mb(tmp_path, 14_000_000_000, 16_777_216, 1, 1024) > 20_000
