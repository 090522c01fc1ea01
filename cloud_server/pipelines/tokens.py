"""Second step: texts -> the numbers of their tokens."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cloud_server.models.backend import NOTE, Progress
from cloud_server.pipelines.options import PipelineOptions
from cloud_server.pipelines.prepare import TRAINING, VALIDATION, read_about, read_texts
from fleet_model.errors import CheckpointError, FrameError
from fleet_model.types import Tensor
from fleet_model.weights import read_weights, write_weights
from fleet_model.workloads.text_classifier.tokens import TOKENIZER, Tokenizer

TOKENS, ABOUT = "tokens.safetensors", "tokenized.json"
CONFIG = "config.json"
_MOST_UNKNOWN = 0.5  # share of all tokens; a tokenizer of another language or model has more


class Part(NamedTuple):
    """The rows of training or validation."""

    ids: Tensor  # (rows, max_length) int32, padded at the end
    lengths: Tensor  # (rows,) int32: tokens of each text, without what pads
    labels: Tensor  # (rows,) int32: index in the labels


def tokenize(
    prepared: Path, model: Path, options: PipelineOptions, into: Path, progress: Progress
) -> None:
    """Write tokens.safetensors and tokenized.json.

    Args:
        prepared: what `prepare` has written.
        model: folder with tokenizer.json and config.json.
        options: how long texts may be.
        into: an empty folder.
        progress: gets what is cut, unknown or left out, as notes.

    Raises:
        BundleError: the tokenizer is missing or damaged.
        CheckpointError: the tokenizer does not fit the model or the texts.
        FrameError: no text of a part has a token that is known.
    """
    tokenizer, labels = Tokenizer(model, options.max_length), read_about(prepared)["labels"]
    _require_room(model, tokenizer)
    tensors, about = dict[str, Tensor](), dict[str, Mapping[str, int]]()
    for side in (TRAINING, VALIDATION):
        part, about[side] = _tokenized(prepared, side, tokenizer, labels)
        tensors |= {f"{side}.{name}": tensor for name, tensor in part._asdict().items()}
    _require_known(about)
    for side, counts in about.items():
        if not counts["texts"]:
            raise FrameError(f"{side}: no text has a token that {TOKENIZER} knows")
        for sentence in _sentences(side, counts, options.max_length):
            progress(NOTE + sentence)
    write_weights(into / TOKENS, tensors)
    (into / ABOUT).write_text(json.dumps({"labels": labels, **about}, indent=2), "utf-8")


def read_tokens(folder: Path) -> dict[str, Part]:
    """Return the parts that `tokenize` has written, as views of its file."""
    tensors = read_weights(folder / TOKENS)
    return {
        side: Part(*(tensors[f"{side}.{name}"] for name in Part._fields))
        for side in (TRAINING, VALIDATION)
    }


def read_labels(folder: Path) -> tuple[str, ...]:
    """Return the labels in the order of their numbers."""
    return tuple(json.loads((folder / ABOUT).read_text("utf-8"))["labels"])


def _tokenized(
    prepared: Path, side: str, tokenizer: Tokenizer, labels: list[str]
) -> tuple[Part, Mapping[str, int]]:
    rank = {label: number for number, label in enumerate(labels)}
    ids, lengths, classes = list[Tensor](), list[int](), list[int]()
    counts = dict.fromkeys(("texts", "cut", "known", "unknown", "without a known token"), 0)
    for text, label in read_texts(prepared, side):
        tokens = tokenizer.tokens(text)
        counts["known"] += tokens.known
        counts["unknown"] += tokens.unknown
        if not tokens.known:
            counts["without a known token"] += 1
            continue
        counts["texts"] += 1
        counts["cut"] += tokens.cut > 0
        ids.append(tokens.ids)
        lengths.append(int(tokens.mask.sum()))
        classes.append(rank[label])
    stacked = np.stack(ids) if ids else np.zeros((0, 0), np.int32)
    return Part(stacked, np.array(lengths, np.int32), np.array(classes, np.int32)), counts


def _require_room(model: Path, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that gives numbers that the model has no row for."""
    try:
        config: Any = json.loads((model / CONFIG).read_text("utf-8"))
        room = config["vocab_size"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"{model.name}: has no {CONFIG} with a vocab_size; expected a folder as Hugging Face's "
            "save_pretrained writes it"
        ) from None
    if not isinstance(room, int) or tokenizer.size > room:
        raise CheckpointError(
            f"{model.name}: the model knows {room} tokens, {TOKENIZER} {tokenizer.size}; they do "
            "not belong together"
        )


def _require_known(about: Mapping[str, Mapping[str, int]]) -> None:
    """Refuse a tokenizer that knows little of the texts."""
    known = sum(counts["known"] for counts in about.values())
    unknown = sum(counts["unknown"] for counts in about.values())
    if unknown > _MOST_UNKNOWN * (known + unknown):
        raise CheckpointError(
            f"{TOKENIZER} does not know {unknown / (known + unknown):.0%} of the tokens of these "
            "texts; is it of this model, and the model of this language?"
        )


def _sentences(side: str, counts: Mapping[str, int], max_length: int) -> list[str]:
    told = []
    if counts["cut"]:
        told.append(
            f"{side}: {counts['cut']} of {counts['texts']} texts are longer than {max_length} "
            "tokens: their ends are left out (--max-length)"
        )
    if counts["unknown"] > (total := counts["known"] + counts["unknown"]) / 200:
        told.append(f"{side}: {counts['unknown'] / total:.1%} of the tokens are unknown")
    if counts["without a known token"]:
        told.append(f"{side}: {counts['without a known token']} texts without a known token")
    return told
