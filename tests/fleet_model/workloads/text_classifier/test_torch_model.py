"""Encoders of Hugging Face's layout: their weights, what of them trains, where they are cut."""

import json

import numpy as np
import pytest
from tiny_encoders import CONFIGS, WORDS, texts, write_encoder, write_tokenizer

from fleet_model.errors import CheckpointError, SettingsError, TrainingError
from fleet_model.workloads.text_classifier import TextClassifier

pytestmark = pytest.mark.torch
KINDS = sorted(CONFIGS)
LABELS = ["bad", "good"]


def model_of(folder, labels=LABELS, length=16):
    from fleet_model.workloads.text_classifier.torch_model import TextClassifierModel

    workload = TextClassifier(labels, length)
    workload.read_files(folder)
    return workload, TextClassifierModel(workload)


def batch_of(workload, count=6):
    rows = [workload.encode(text).inputs for text, _ in texts(count)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def run(part, batch):
    import torch

    with torch.no_grad():
        return part.module(*(torch.from_numpy(batch[name]) for name in part.inputs)).numpy()


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp(request.param) / "encoder", request.param)


def test_it_is_what_transformers_loads_with_a_new_head(folder):
    import torch
    from transformers import AutoModelForSequenceClassification

    workload, definition = model_of(folder)
    model, again = definition.load(folder), definition.load(folder)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
    ours = model.state_dict()
    for name, tensor in theirs.state_dict().items():
        if not definition.path(name).startswith("head/"):
            assert torch.equal(tensor, ours[name]), name
        assert torch.equal(ours[name], again.state_dict()[name]), "another start at every call"
    theirs.load_state_dict(ours)
    batch = batch_of(workload)
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.from_numpy(batch["input_ids"]).long(),
            attention_mask=torch.from_numpy(batch["attention_mask"]).long(),
        ).logits
    whole = definition.cut(model, definition.trainable(model, "all")).rest
    np.testing.assert_array_equal(run(whole, batch), expected.numpy())


def test_a_head_of_the_folder_is_kept(tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = write_encoder(tmp_path / "tuned", labels=2)
    _, definition = model_of(folder)
    found = definition.load(folder).state_dict()
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(found[name], tensor)


def test_the_norm_of_a_new_head_begins_with_ones(tmp_path):
    """ModernBERT has one; a norm of zeros would answer 0 for all texts."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    folder = write_encoder(tmp_path / "modern", "modernbert", **sizes, num_hidden_layers=2)
    _, definition = model_of(folder)
    started = definition.load(folder).state_dict()
    assert started["head.norm.weight"].tolist() == [1] * 16
    assert started["classifier.bias"].tolist() == [0, 0]


def test_scopes_are_named_alike_for_all_encoders(folder):
    _, definition = model_of(folder)
    model = definition.load(folder)
    every = definition.trainable(model, "all")
    head = definition.trainable(model, "head")
    assert {"head/kernel", "head/bias"} <= set(head) < set(every)
    assert all(path.startswith("head/") for path in head)
    attention = set(definition.trainable(model, "attention")) - set(head)
    assert len(attention) == 4, "q and v of two layers"
    assert all(path.endswith("/kernel") for path in attention)
    last = set(definition.trainable(model, "last-1")) - set(head)
    assert last
    assert all("layer/1/" in path for path in last)
    assert set(definition.trainable(model, "last-2")) > last | set(head)
    for scope in ("last-3", "last-0", "tail", ""):
        with pytest.raises(SettingsError, match=r"choose head, attention .*, last-1 to last-2"):
            definition.trainable(model, scope)


def test_the_cut_before_the_head_computes_the_same(folder):
    workload, definition = model_of(folder)
    model = definition.load(folder)
    batch = batch_of(workload)
    whole = definition.cut(model, definition.trainable(model, "attention"))
    assert whole.trunk is None
    cut = definition.cut(model, definition.trainable(model, "head"))
    hidden = run(cut.trunk, batch)
    np.testing.assert_array_equal(run(cut.rest, {"hidden": hidden}), run(whole.rest, batch))


def test_the_cut_between_two_layers_computes_the_same(folder):
    workload, definition = model_of(folder)
    model = definition.load(folder)
    batch = definition.compact(batch_of(workload))
    whole = definition.cut(model, definition.trainable(model, "all")).rest
    cut = definition.trainer_cut(model, definition.trainable(model, "last-1"))
    assert cut.trunk.outputs == cut.rest.inputs
    import torch

    with torch.no_grad():
        between = cut.trunk.module(*(torch.from_numpy(batch[n]) for n in cut.trunk.inputs))
        found = cut.rest.module(*between).numpy()
    np.testing.assert_allclose(found, run(whole, batch), rtol=0, atol=1e-6)
    assert np.ptp(found[:, 0]) > 1e-3, "all texts look alike: the comparison says nothing"
    shared = {id(tensor) for tensor in model.parameters()}
    assert {id(tensor) for tensor in cut.rest.module.parameters()} < shared


def test_the_last_layer_of_a_distilbert_is_asked_for_the_first_token_alone(tmp_path):
    import torch

    workload, definition = model_of(write_encoder(tmp_path / "distilbert"))
    model = definition.load(tmp_path / "distilbert")
    cut = definition.trainer_cut(model, definition.trainable(model, "last-1"))
    seen = []
    ffn = model.distilbert.transformer.layer[-1].ffn
    ffn.register_forward_hook(lambda module, given, answer: seen.append(tuple(answer.shape)))
    batch = definition.compact(batch_of(workload))
    between = cut.trunk.module(*(torch.from_numpy(batch[n]) for n in cut.trunk.inputs))
    weight = model.distilbert.transformer.layer[-1].attention.k_lin.weight
    ids, mask = (torch.from_numpy(batch[n]).long() for n in ("input_ids", "attention_mask"))
    answers = (cut.rest.module(*between), model(input_ids=ids, attention_mask=mask).logits)
    gradients = [torch.autograd.grad(logits[:, 0].sum(), weight)[0] for logits in answers]
    count, length = batch["input_ids"].shape
    assert seen == [(count, 1, 16), (count, length, 16)]
    assert length > 1
    assert gradients[1].abs().max() > 1e-4
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-5)


def test_nothing_is_cut_where_the_lowest_layer_is_trained(folder):
    _, definition = model_of(folder)
    model = definition.load(folder)
    for scope in ("attention", "last-2", "all"):
        assert definition.trainer_cut(model, definition.trainable(model, scope)).trunk is None
    head = definition.trainer_cut(model, definition.trainable(model, "head"))
    assert head.trunk.outputs == ("hidden",)


def test_nothing_is_cut_where_parts_would_compute_another_thing(folder):
    """As with a norm behind the layers, which the lower part would have, too."""
    import torch

    class Doubled(torch.nn.ModuleList):
        def __iter__(self):
            return iter([*super().__iter__(), *super().__iter__()])

    _, definition = model_of(folder)
    model = definition.load(folder)
    trained = definition.trainable(model, "last-1")
    inner = getattr(model, model.base_model_prefix)
    stack = inner.transformer if hasattr(inner, "transformer") else inner.encoder
    stack.layer = Doubled(stack.layer)
    assert definition.trainer_cut(model, trained).trunk is None


def test_padding_changes_nothing_and_is_left_out(folder):
    workload, definition = model_of(folder)
    rest = definition.cut(definition.load(folder), [""]).rest
    batch = batch_of(workload)
    small = definition.compact(batch)
    assert small["input_ids"].shape[1] == batch["attention_mask"].sum(1).max() < 16
    np.testing.assert_allclose(run(rest, small), run(rest, batch), atol=1e-5)
    assert definition.compact({"hidden": np.ones((2, 1, 4))})["hidden"].shape == (2, 1, 4)


def test_the_loss_is_a_weighted_mean():
    import torch

    from fleet_model.workloads.text_classifier.torch_model import TextClassifierModel

    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    targets, weight = {"class": torch.tensor([0, 0, 1])}, torch.tensor([1.0, 3.0, 0.0])
    definition = TextClassifierModel(TextClassifier(LABELS))
    rows = -torch.log_softmax(logits, -1)[torch.arange(3), targets["class"]]
    expected = (rows[0] + 3 * rows[1]) / 4
    assert float(definition.loss(targets, {"logits": logits}, weight)) == pytest.approx(
        float(expected)
    )


def test_a_built_module_has_the_same_tensors(folder):
    from fleet_model.torch.tensors import slots

    _, definition = model_of(folder)
    shapes = [
        {path: slot.shape for path, slot in slots(model, definition.path).items()}
        for model in (definition.load(folder), definition.build(folder))
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_folder_in_half_precision_is_built_in_float32(tmp_path, key):
    import torch

    folder = write_encoder(tmp_path / "encoder")
    change_config(folder, **{"dtype": None, key: "bfloat16"})
    _, definition = model_of(folder)
    for model in (definition.load(folder), definition.build(folder)):
        assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def test_a_folder_chooses_neither_code_nor_the_kind_of_answer(tmp_path):
    folder = write_encoder(tmp_path / "encoder")
    change_config(
        folder, attn_implementation="eager", _attn_implementation="eager", return_dict=False,
        output_hidden_states=True, output_attentions=True, quantization_config=None,
    )  # fmt: skip
    _, definition = model_of(folder)
    for model in (definition.load(folder), definition.build(folder)):
        config = model.config
        assert (config._attn_implementation, config.return_dict) == ("sdpa", True)
        assert (config.output_hidden_states, config.output_attentions) == (False, False)
        assert not hasattr(config, "quantization_config")


def change_config(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"auto_map": {"AutoConfig": "x.Y"}}, "code of its own"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "its weights are quantized"),
        ({"model_type": "nothing-like-it"}, "nothing-like-it"),
        ({"vocab_size": 10}, f"knows 10 tokens, tokenizer.json {len(WORDS)}; they do not belong"),
        ({"dim": 32}, "of the right shape"),
        ({"n_layers": 3}, "of the right shape, and"),
        ({"max_position_embeddings": 8}, "sees 8 tokens of a text, max_length is 16"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, values, words):
    folder = write_encoder(tmp_path / "encoder")
    change_config(folder, **values)
    _, definition = model_of(folder)
    with pytest.raises(CheckpointError, match=words) as error:
        definition.load(folder)
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_or_damaged_file_is_named(tmp_path, name):
    folder = write_encoder(tmp_path / "encoder")
    _, definition = model_of(folder)
    (folder / name).write_text("{")
    with pytest.raises(CheckpointError, match="encoder: ") as error:
        definition.load(folder)
    assert str(tmp_path) not in str(error.value)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}; expected a folder as"):
        definition.load(folder)


def test_a_client_says_what_it_cannot_build(tmp_path):
    folder = write_tokenizer(tmp_path / "encoder")
    (folder / "config.json").write_text('{"model_type": "nothing-like-it"}')
    _, definition = model_of(folder)
    with pytest.raises(TrainingError, match=r"config\.json: .*nothing-like-it"):
        definition.build(folder)


def test_labels_of_another_model_are_not_taken_for_these(tmp_path):
    folder = write_encoder(tmp_path / "encoder", labels=5)
    _, definition = model_of(folder, ["a", "b", "c"])
    assert definition.load(folder).config.num_labels == 3
