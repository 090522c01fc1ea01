"""Texts become numbers by the model's own tokenizer; one that does not fit is refused."""

import json

import numpy as np
import pytest
from tiny_encoders import WORDS, texts, write_tokenizer

from cloud_server.pipelines.options import PipelineOptions
from cloud_server.pipelines.tokens import read_labels, read_tokens, tokenize
from fleet_model.errors import BundleError, CheckpointError, FrameError


@pytest.fixture
def model(tmp_path):
    folder = write_tokenizer(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"vocab_size": len(WORDS)}))
    return folder


@pytest.fixture
def tokenized(tmp_path, model):
    """Return tokenized(training, validation) -> parts, and what was told."""

    def run(training, validation, **options):
        prepared, into, told = tmp_path / "prepared", tmp_path / "tokens", []
        prepared.mkdir()
        into.mkdir()
        (prepared / "prepared.json").write_text(json.dumps({"labels": ["bad", "good"]}))
        for side, rows in (("train", training), ("validation", validation)):
            lines = (json.dumps({"text": text, "label": label}) for text, label in rows)
            (prepared / f"{side}.jsonl").write_text("".join(f"{line}\n" for line in lines))
        tokenize(prepared, model, PipelineOptions(**options), into, told.append)
        assert read_labels(into) == ("bad", "good")
        return read_tokens(into), told

    return run


def test_numbers_lengths_and_labels_are_those_of_the_texts(tokenized):
    parts, told = tokenized([("good film", "good"), ("bad", "bad")], [("a door", "bad")])
    ids = [[2, 12, 8, 3], [2, 15, 3, 0]]  # [CLS] good film [SEP]
    assert parts["train"].ids[:, :4].tolist() == ids
    assert parts["train"].ids.shape == (2, 128)
    assert parts["train"].lengths.tolist() == [4, 3]
    assert parts["train"].labels.tolist() == [1, 0]
    assert parts["validation"].labels.dtype == np.int32
    assert not told


def test_what_is_cut_unknown_or_left_out_is_told(tokenized):
    rows = [*texts(40), ("the " * 20, "good"), ("zebra", "bad")]
    parts, told = tokenized(rows, texts(4), max_length=16)
    assert len(parts["train"].ids) == 41
    assert any("train: 1 of 41 texts are longer than 16 tokens" in one for one in told)
    assert any("1 texts without a known token" in one for one in told)


def test_a_tokenizer_that_knows_nothing_of_the_texts_is_refused(tokenized):
    with pytest.raises(CheckpointError, match="does not know 100% of the tokens"):
        tokenized([("zebra giraffe", "good")], [("lion", "bad")])


def test_a_tokenizer_of_another_model_is_refused(tokenized, model):
    (model / "config.json").write_text(json.dumps({"vocab_size": 10}))
    with pytest.raises(CheckpointError, match=r"knows 10 tokens, tokenizer.json 36"):
        tokenized(texts(4), texts(4))


@pytest.mark.parametrize("content", ["[]", "{}", "no json", '{"vocab_size": "many"}'])
def test_a_damaged_config_is_refused(tokenized, model, content):
    (model / "config.json").write_text(content)
    with pytest.raises(CheckpointError):
        tokenized(texts(4), texts(4))


def test_a_folder_without_a_tokenizer_is_refused(tokenized, model):
    (model / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer.json: missing"):
        tokenized(texts(4), texts(4))


def test_a_part_without_a_known_text_is_refused(tokenized):
    with pytest.raises(FrameError, match="validation: no text has a token"):
        tokenized(texts(40), [("zebra", "bad")])
