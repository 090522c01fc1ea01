"""How much memory a language model takes, told before anything of it is loaded."""

import json
from pathlib import Path

from fleet_model.torch.folder import CONFIG

# Python with torch and transformers, before a model is built.
_LIBRARIES_MB = 600
# Copies of A and B: gradients, two moments, the checkpoint, and what a step makes of them.
_COPIES = 10


# What config.json leaves out of the language model of a LLaVA, as that of 7 B does: Llama's.
_LLAMA = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}


def memory_mb(
    directory: Path, base: int, factors: int = 0, rows: int = 0, length: int = 0
) -> float:
    """Return about how much memory a model takes.

    Args:
        directory: holds config.json.
        base: bytes of the base.
        factors: bytes of the adapters that are trained; 0: none are.
        rows: that are computed at once.
        length: tokens of a row.
    """
    size = _sizes(directory)
    hidden = size.get("hidden_size", 0)
    inner = size.get("intermediate_size", 4 * hidden)
    layers, words = size.get("num_hidden_layers", 0), size.get("vocab_size", 0)
    # What the backward pass needs of each token: about 12 rows of the width and 4 of the inner one
    # in a layer, and the scores of all words with their gradient and probabilities. SmolLM2 (538
    # MB) took 2,463 MB with 4 rows of 256 tokens whose answers have two: without most of the scores
    # this says 2,760.
    kept = 4 * rows * length * (layers * (12 * hidden + 4 * inner) + 4 * words)
    return _LIBRARIES_MB + (base + _COPIES * factors + kept) / 1e6


def cache_mb(directory: Path, rows: int, length: int) -> float:
    """Return how much keys and values of texts take that are gone on with, in float32.

    Args:
        directory: holds config.json.
        rows: texts at once.
        length: tokens of each.
    """
    size = _sizes(directory)
    heads = size.get("num_attention_heads", 1) or 1
    width = size.get("head_dim") or size.get("hidden_size", 0) // heads
    kept = size.get("num_key_value_heads", heads) * width
    return 2 * 4 * rows * length * size.get("num_hidden_layers", 0) * kept / 1e6


def _sizes(directory: Path) -> dict[str, int]:
    """Return the whole numbers of config.json, of a model that sees those of its language model."""
    about = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    inner = about.get("text_config")
    if isinstance(inner, dict):
        about = {**_LLAMA, **inner} if inner.get("model_type", "llama") == "llama" else inner
    return {name: value for name, value in about.items() if isinstance(value, int)}
