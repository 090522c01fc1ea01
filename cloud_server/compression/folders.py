"""Read and write the folder of an encoder, as Hugging Face's libraries have it, in NumPy."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fleet_model.errors import CheckpointError
from fleet_model.types import Weights
from fleet_model.weights import read_weights, write_weights
from fleet_model.workloads.text_classifier.tokens import TOKENIZER

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LAYER = re.compile(r"(?<![^.])layers?\.(\d+)\.")


class Encoder(NamedTuple):
    """What a folder says; nothing of it is run."""

    config: dict[str, Any]
    weights: Weights


def read_encoder(model: Path) -> Encoder:
    """Return config and tensors; raises CheckpointError."""
    try:
        config = json.loads((model / CONFIG).read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError
    except (OSError, ValueError):
        raise CheckpointError(
            f"{model.name}: has no readable {CONFIG}; expected a folder as Hugging Face's "
            "save_pretrained writes it"
        ) from None
    if not (model / WEIGHTS).is_file():
        raise CheckpointError(f"{model.name}: has no {WEIGHTS}; save it with safetensors")
    return Encoder(config, read_weights(model / WEIGHTS))


def write_encoder(
    into: Path, config: Mapping[str, Any], weights: Weights, tokenizer: Path | str
) -> None:
    """Write the folder; `tokenizer` is a folder that has one, or its text."""
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (into / CONFIG).write_text(text, "utf-8")
    write_weights(into / WEIGHTS, weights, {"format": "pt"})
    if isinstance(tokenizer, Path):
        shutil.copyfile(tokenizer / TOKENIZER, into / TOKENIZER)
    else:
        (into / TOKENIZER).write_text(tokenizer, "utf-8")


def field(config: Mapping[str, Any], *names: str) -> str:
    """Return the one of these names that a config has; raises CheckpointError."""
    for name in names:
        if isinstance(config.get(name), int):
            return name
    raise CheckpointError(
        f"{CONFIG}: has none of {', '.join(names)}; is it of DistilBERT, BERT or RoBERTa?"
    )


def layers_of(weights: Weights) -> int:
    """Return how many layers there are; raises CheckpointError where none is found."""
    numbers = {int(found[1]) for name in weights if (found := LAYER.search(name))}
    if numbers != set(range(len(numbers))) or not numbers:
        raise CheckpointError(f"{WEIGHTS}: its tensors are not named by layers from 0 on")
    return len(numbers)
