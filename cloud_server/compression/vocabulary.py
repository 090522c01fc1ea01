"""Cut an encoder's vocabulary to what a corpus uses: the table of words is most of a small model.

Needs the library tokenizers, no ML framework.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cloud_server.compression.folders import field, read_encoder, write_encoder
from fleet_model.errors import BundleError, CheckpointError, SettingsError
from fleet_model.types import Tensor
from fleet_model.workloads.text_classifier.tokens import TOKENIZER

_TABLE = "embeddings.word_embeddings.weight"
_KINDS = ("WordPiece", "WordLevel")


class Words(NamedTuple):
    """How a cut tokenizer sees texts, beside the one that it is of."""

    words: int  # of the texts, as both tokenizers separate them
    unknown: int  # of them: the cut one has no pieces for them
    unknown_before: int  # of them: not even the whole one has
    otherwise: int  # of them: seen, but in other pieces than before

    @property
    def unknown_share(self) -> float:
        """Return the share of words that are unknown; 0 without a word."""
        return self.unknown / max(1, self.words)

    @property
    def otherwise_share(self) -> float:
        """Return the share of words that are seen in other pieces; 0 without a word."""
        return self.otherwise / max(1, self.words)


def cut_vocabulary(model: Path, texts: Sequence[str], into: Path, least: int = 1) -> Tensor:
    """Write an encoder that knows the pieces of words that these texts use; return their rows.

    A text of the corpus is seen as before, in other numbers (with `least` 1). In other texts a word
    whose pieces are gone falls into shorter ones, at worst into letters, which stay where the
    corpus has them at all; `compare_words` tells how many.

    Args:
        model: folder with config.json, model.safetensors, tokenizer.json.
        texts: the corpus that the model is trained on.
        into: an empty folder.
        least: times that a piece is used in the corpus to stay.

    Returns:
        (kept,) int64: rows of the old table of words, growing; row n of the new one is row
        kept[n] of the old one, bit for bit.

    Raises:
        BundleError: the tokenizer cannot be read.
        CheckpointError: the table does not fit the tokenizer.
        SettingsError: the tokenizer is of a kind whose pieces depend on each other, or no text has
            a piece.
    """
    config, weights = read_encoder(model)
    about = _about(model)
    kind = about["model"].get("type", "WordPiece")
    if kind not in _KINDS:
        raise SettingsError(
            f"{TOKENIZER}: the pieces of a {kind} tokenizer depend on each other, so none can be "
            f"left out; a vocabulary can be cut of {' and '.join(_KINDS)} (BERT, DistilBERT, "
            "MiniLM)"
        )
    (table,) = [name for name in weights if name.endswith(_TABLE)] or [""]
    if not table:
        raise CheckpointError(f"{model.name}: has no {_TABLE}")
    kept = _kept(about, model, texts, least)
    if kept[-1] >= len(weights[table]):
        raise CheckpointError(
            f"{model.name}: the model has {len(weights[table])} rows, {TOKENIZER} the number "
            f"{kept[-1]}; they do not belong together"
        )
    new = {int(old): number for number, old in enumerate(kept)}
    made = {**weights, table: np.ascontiguousarray(weights[table][kept])}
    config[field(config, "vocab_size")] = len(kept)
    for name, value in config.items():
        if name.endswith("_token_id") and isinstance(value, int):
            config[name] = new.get(value, 0)
    renumbered = json.dumps(_renumbered(about, new), ensure_ascii=False)
    write_encoder(into, config, made, renumbered)
    return kept


def compare_words(before: Path, after: Path, texts: Sequence[str]) -> Words:
    """Count the words of texts that a cut tokenizer does not know, or sees in other pieces.

    Args:
        before: folder with the whole tokenizer.
        after: folder with the cut one.
        texts: of the kind that the model will see.
    """
    old, new = _opened(before), _opened(after)
    nothing_old, nothing_new = _unknown(before), _unknown(after)
    words = unknown = unknown_before = otherwise = 0
    for text in texts:
        for was, now in zip(_pieces(old, text), _pieces(new, text), strict=True):
            words += 1
            unknown_before += nothing_old in was
            if nothing_new in now:
                unknown += 1
            else:
                otherwise += was != now
    return Words(words, unknown, unknown_before, otherwise)


def _kept(about: Mapping[str, Any], model: Path, texts: Sequence[str], least: int) -> Tensor:
    """Return the numbers that stay: used ones, single letters of the corpus, special ones."""
    tokenizer, vocabulary = _opened(model), about["model"]["vocab"]
    highest = max([*vocabulary.values(), *(one["id"] for one in about.get("added_tokens", []))])
    used = np.zeros(highest + 1, np.int64)
    for encoded in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        np.add.at(used, np.array(encoded.ids, np.int64), 1)
    used[vocabulary.get(about["model"].get("unk_token"), [])] = 0
    stays = used >= max(1, least)
    if not stays.any():
        raise SettingsError("no text of the corpus has a piece that the tokenizer knows")
    # Letters of pieces that are used rarely stay, too: they are what other words fall into.
    prefix = about["model"].get("continuing_subword_prefix", "##")
    name_of = {number: piece for piece, number in vocabulary.items()}
    letters = {c for n in np.flatnonzero(used) for c in name_of.get(int(n), "")}
    for piece, number in vocabulary.items():
        bare = piece.removeprefix(prefix)
        stays[number] |= len(bare) == 1 and bare in letters
    for number in _special(about):
        stays[number] = True
    kept: Tensor = np.flatnonzero(stays)
    return kept


def _special(about: Mapping[str, Any]) -> set[int]:
    """Return the numbers that mean something beside words."""
    found = {one["id"] for one in about.get("added_tokens", [])}
    vocabulary = about["model"]["vocab"]
    names = [about["model"].get("unk_token"), "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    found |= {vocabulary[name] for name in names if name in vocabulary}
    if about.get("padding"):
        found.add(about["padding"]["pad_id"])
    return found | set(_numbers(about.get("post_processor")))


def _numbers(part: Any) -> Iterator[int]:
    """Yield the numbers of what begins and ends a text, in whatever kind of post-processor."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "ids":
                yield from value
            elif name in {"cls", "sep"}:
                yield value[1]
            else:
                yield from _numbers(value)
    elif isinstance(part, list):
        for value in part:
            yield from _numbers(value)


def _renumbered(about: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    vocabulary = about["model"]["vocab"]
    kept = {piece: new[number] for piece, number in vocabulary.items() if number in new}
    made = {**about, "model": {**about["model"], "vocab": kept}}
    made["added_tokens"] = [
        {**one, "id": new[one["id"]]} for one in about.get("added_tokens") or []
    ]
    if about.get("padding"):
        made["padding"] = {**about["padding"], "pad_id": new[about["padding"]["pad_id"]]}
    made["post_processor"] = _mapped(about.get("post_processor"), new)
    return made


def _mapped(part: Any, new: Mapping[int, int]) -> Any:
    """Return a post-processor with other numbers; see `_numbers`."""
    if isinstance(part, list):
        return [_mapped(value, new) for value in part]
    if not isinstance(part, dict):
        return part
    made = {}
    for name, value in part.items():
        if name == "ids":
            made[name] = [new[number] for number in value]
        elif name in {"cls", "sep"}:
            made[name] = [value[0], new[value[1]]]
        else:
            made[name] = _mapped(value, new)
    return made


def _about(model: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads((model / TOKENIZER).read_text("utf-8"))
        about["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleError(f"{TOKENIZER}: no tokenizer can be read from {model.name}") from None
    return about


def _opened(model: Path) -> Any:
    import tokenizers

    try:
        opened = tokenizers.Tokenizer.from_file(str(model / TOKENIZER))
    except Exception as error:  # noqa: BLE001  (the library raises Exception itself)
        why = str(error).partition("\n")[0][:200]
        raise BundleError(f"{TOKENIZER}: no tokenizer can be read from it: {why}") from None
    opened.no_padding()
    opened.no_truncation()
    return opened


def _unknown(model: Path) -> str:
    return _about(model)["model"].get("unk_token") or "[UNK]"


def _pieces(tokenizer: Any, text: str) -> list[list[str]]:
    """Return the pieces of each word."""
    encoded = tokenizer.encode(text, add_special_tokens=False)
    pairs = zip(encoded.word_ids, encoded.tokens, strict=True)
    return [[piece for _, piece in some] for _, some in groupby(pairs, key=lambda one: one[0])]
