"""What texts mean: numbers of tokens, classes, measures. No PyTorch."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tiny_encoders import WORDS, write_tokenizer

from fleet_model.bundle import WorkloadSpec
from fleet_model.errors import BundleError, FrameError, SettingsError
from fleet_model.types import Example
from fleet_model.workload import read_files, rebuild, require_packages
from fleet_model.workloads.text_classifier import TextClassifier
from fleet_model.workloads.text_classifier.tokens import Tokenizer

LABELS = ["bad", "good"]


@pytest.fixture
def workload(tmp_path):
    made = TextClassifier(LABELS, max_length=8)
    made.read_files(write_tokenizer(tmp_path / "folder"))
    return made


def words(workload, text):
    inputs = workload.encode(text).inputs
    return [WORDS[number] for number in inputs["input_ids"]], inputs["attention_mask"].tolist()


def test_a_text_is_numbers_and_a_mask_of_what_pads(workload):
    encoded = workload.encode("A good film!").inputs
    assert {name: (t.shape, t.dtype.name) for name, t in encoded.items()} == {
        name: (spec.shape, spec.dtype) for name, spec in workload.task.inputs.items()
    }
    assert words(workload, "A good film!") == (
        ["[CLS]", "a", "good", "film", "!", "[SEP]", "[PAD]", "[PAD]"], [1] * 6 + [0] * 2
    )  # fmt: skip


def test_the_end_of_a_long_text_is_left_out_and_told_once(workload):
    ids, mask = words(workload, "the film was not good and not bad , so we left")
    assert ids == ["[CLS]", "the", "film", "was", "not", "good", "and", "[SEP]"]
    assert sum(mask) == 8
    workload.encode("good")
    (told,) = workload.told()
    assert told.startswith("1 of 2 texts are longer than 8 tokens: their ends are left out")
    assert not workload.told()


def test_unknown_tokens_are_told(workload):
    workload.encode("a zebra")
    assert workload.told() == ["50.0% of the tokens of 1 texts are unknown"]


def test_texts_are_counted_in_several_threads(workload):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(workload.encode, ["good " * 20] * 400))
    assert workload.told()[0].startswith("400 of 400 texts are longer")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("zebra quagga", "holds no token that the tokenizer knows"),
        (b"good", "a bytes, expected a text"),
        (None, "a NoneType, expected a text"),
    ],
)
def test_what_is_no_text_is_refused(workload, raw, words):
    with pytest.raises(FrameError, match=words):
        workload.encode(raw)


def test_clients_of_serve_send_utf_8(workload):
    assert workload.from_bytes("à la".encode()) == "à la"
    with pytest.raises(FrameError, match="not UTF-8"):
        workload.from_bytes(b"\xff")


def test_an_unknown_label_is_refused(workload):
    assert workload.target(Example(raw="x", key="1", label="good")).tensors["class"] == 1
    for label in ("fine", None, ""):
        with pytest.raises(FrameError, match=r"unknown label .* knows bad, good"):
            workload.target(Example(raw="x", key="1", label=label))


def test_measures_are_those_of_a_known_table(workload):
    logits = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]], np.float32))
    measured = workload.measure({"logits": logits}, {"class": np.array([0, 0, 1, 1], np.int32)})
    assert measured.keys() == workload.task.measures.keys()
    assert measured["accuracy"] == pytest.approx(3 / 4)
    assert measured["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)  # as scikit-learn has it
    assert measured["loss"] == pytest.approx(-np.log([0.9, 0.8, 0.6, 0.3]).mean(), rel=1e-6)


def test_classes_that_nobody_has_or_finds_are_left_out_of_macro_f1():
    workload = TextClassifier(["a", "b", "c"])
    logits = np.eye(3, dtype=np.float32)[[0, 1]]
    measured = workload.measure({"logits": logits}, {"class": np.array([0, 1], np.int32)})
    assert measured["macro_f1"] == 1


def test_predictions_are_classes_best_first(workload):
    found = workload.decode({"logits": np.log(np.array([0.2, 0.8], np.float32))}, None)
    assert [(one.label, round(one.score, 6)) for one in found] == [("good", 0.8), ("bad", 0.2)]


def test_its_config_rebuilds_it(workload, tmp_path):
    spec = WorkloadSpec(name="text-classifier", config=json.loads(json.dumps(workload.config)))
    again = rebuild(spec, tmp_path / "folder")
    assert again.task == workload.task
    assert words(again, "so good") == words(workload, "so good")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"labels": ["a"]}, "expected at least two"),
        ({"labels": ["a", "b"], "max_length": 4}, "max_length is 4, expected 8 to 4096 tokens"),
        ({"labels": ["a", "b"], "max_length": "64"}, "max_length is '64'"),
    ],
)
def test_wrong_settings_are_refused(config, words):
    with pytest.raises(SettingsError, match=words):
        TextClassifier(**config)


@pytest.mark.parametrize("content", ["", "{}", '{"model": 1}', "\udcff"])
def test_a_damaged_tokenizer_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content, errors="surrogateescape")
    with pytest.raises(BundleError, match="no tokenizer can be read from it") as error:
        TextClassifier(LABELS).read_files(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "size"),
    [
        (lambda it: None, len(WORDS)),
        (lambda it: it["model"]["vocab"].update(gap=99), 100),
        (lambda it: it["post_processor"]["special_tokens"]["[SEP]"].update(ids=[60]), 61),
        (lambda it: it.update(padding=padding(70)), 71),
    ],
)
def test_a_tokenizer_may_give_its_highest_number(tmp_path, change, size):
    """A vocabulary may have gaps, and numbers that are not in it: the model needs a row of each."""
    file = write_tokenizer(tmp_path) / "tokenizer.json"
    about = json.loads(file.read_text())
    change(about)
    file.write_text(json.dumps(about))
    assert Tokenizer(tmp_path, 8).size == size


def test_padding_with_a_number_that_is_none_is_refused(tmp_path):
    file = write_tokenizer(tmp_path) / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "padding": padding(2**31)}))
    with pytest.raises(BundleError, match="pads with number 2147483648, which is none"):
        Tokenizer(tmp_path, 8)


def padding(number):
    return {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": number,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }


def test_a_missing_tokenizer_is_told_with_what_to_do(tmp_path):
    with pytest.raises(BundleError, match=r"missing; save it beside the model"):
        TextClassifier(LABELS).read_files(tmp_path)
    with pytest.raises(BundleError, match="has not been read"):
        TextClassifier(LABELS).encode("good")


def test_without_the_library_it_says_what_to_install(workload, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for call in (lambda: require_packages(workload), lambda: read_files(workload, tmp_path)):
        with pytest.raises(BundleError, match=r"tokenizers is needed.*fleetlearn\[text\]"):
            call()


def test_samples_are_shipped_or_the_operators_own(tmp_path):
    workload = TextClassifier(LABELS, 8)
    (tmp_path / "a.txt").write_text("good film\n\nbad\n")
    workload.read_files(write_tokenizer(tmp_path / "folder"))
    assert len(list(workload.samples(tmp_path))) == 2
    with pytest.raises(SettingsError, match=r"expected a folder of \.txt files"):
        list(workload.samples(tmp_path / "none"))


def test_a_tokenizer_of_something_else_is_told_before_anything_is_exported(tmp_path):
    workload = TextClassifier(LABELS, 8)
    workload.read_files(write_tokenizer(tmp_path, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "qzx"]))
    with pytest.raises(SettingsError, match="knows no token of the texts that exports"):
        list(workload.samples(None))
