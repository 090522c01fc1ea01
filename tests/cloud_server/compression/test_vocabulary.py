import json
import sys
from pathlib import Path

import numpy as np
import pytest

from cloud_server.compression.vocabulary import compare_words, cut_vocabulary
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.weights import read_weights, write_weights
from fleet_model.workloads.text_classifier.tokens import Tokenizer

sys.path.append(str(Path(__file__).parents[2]))
from tiny_encoders import WORDS, write_tokenizer

TABLE = "embeddings.word_embeddings.weight"
ROWS = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "z", "film", "##s", "good", "go", "##od", "##o",
          "g", "o", "##d", "door", "##z", "bad"]  # fmt: skip


def folder(path, words=WORDS, rows=ROWS):
    write_tokenizer(path, words)
    write_weights(path / "model.safetensors", {TABLE: rows, "head": np.ones(2, np.float32)})
    config = {"vocab_size": len(rows), "pad_token_id": 0, "eos_token_id": None}
    (path / "config.json").write_text(json.dumps(config))
    return path


def word_pieces(path):
    """As `folder`, of a tokenizer that separates words into pieces."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, processors

    folder(path)
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    library = Library(models.WordPiece(vocabulary, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    library.enable_padding(pad_id=0)
    library.save(str(path / "tokenizer.json"))
    return path


def cut(model, texts, into, **others):
    into.mkdir()
    return cut_vocabulary(model, texts, into, **others)


def test_kept_rows_are_the_old_ones_bit_for_bit(tmp_path):
    model, new = folder(tmp_path / "old"), tmp_path / "new"
    kept = cut(model, ["the door is good", "good robot"], new)
    assert [WORDS[n] for n in kept] == [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "is", "door", "robot", "good", "i",
    ]  # fmt: skip
    made = read_weights(new / "model.safetensors")
    assert made[TABLE].tobytes() == ROWS[kept].tobytes()
    assert made["head"].tolist() == [1, 1]
    assert json.loads((new / "config.json").read_text()) == {
        "vocab_size": 10, "pad_token_id": 0, "eos_token_id": None,
    }  # fmt: skip


def test_a_text_of_the_corpus_is_seen_as_before_in_other_numbers(tmp_path):
    for make in (folder, word_pieces):
        model, new = make(tmp_path / make.__name__), tmp_path / f"new-{make.__name__}"
        texts = ["good film", "bad films", "door"]
        kept = cut(model, texts, new)
        assert len(kept) < 17
        for text in texts:
            old, now = (Tokenizer(one, 12).tokens(text) for one in (model, new))
            assert kept[now.ids].tolist() == old.ids.tolist()
            assert (now.known, now.unknown) == (old.known, old.unknown)


def test_other_words_fall_into_letters_or_are_unknown_and_both_are_told(tmp_path):
    model, new = word_pieces(tmp_path / "old"), tmp_path / "new"
    kept = [PIECES[n] for n in cut(model, ["good films", "go"], new)]
    assert kept == [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "film", "##s", "good", "go", "##o", "g", "o", "##d",
    ]  # fmt: skip
    words = compare_words(model, new, ["good god door zz goz"])
    # door, zz and goz are unknown, goz already before? g, ##o, ##z: gone with the letter z.
    assert words == (5, 3, 0, 0)
    assert words.unknown_share == 3 / 5
    assert compare_words(model, new, ["goood films"]).otherwise_share == 1 / 2


def test_rare_pieces_go_where_it_is_asked(tmp_path):
    model, new = folder(tmp_path / "old"), tmp_path / "new"
    kept = cut(model, ["good film", "good door"], new, least=2)
    assert [WORDS[n] for n in kept][4:] == ["good", "i"]


def test_what_cannot_be_cut_is_refused(tmp_path):
    model = folder(tmp_path / "old")
    with pytest.raises(SettingsError, match="no text of the corpus"):
        cut(model, ["xyz"], tmp_path / "a")
    small = folder(tmp_path / "small", rows=ROWS[:9])
    with pytest.raises(CheckpointError, match=r"has 9 rows, tokenizer\.json the number"):
        cut(small, ["with a robot"], tmp_path / "b")
    about = json.loads((model / "tokenizer.json").read_text())
    about["model"]["type"] = "BPE"
    (model / "tokenizer.json").write_text(json.dumps(about))
    with pytest.raises(SettingsError, match="pieces of a BPE tokenizer depend on each other"):
        cut(model, ["good"], tmp_path / "c")
