"""A folder as Hugging Face's `save_pretrained` writes it: what of its config.json is used.

Only code of transformers is run, none of a folder.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleet_model.errors import one_line

CONFIG, CHECKPOINT = "config.json", "model.safetensors"
# What config.json says of where it comes from: the names of other labels would be taken for their
# number, and a folder in half precision begins, and is built, in float32 as any other.
_LEFT_OUT = ("id2label", "label2id", "_name_or_path", "dtype", "torch_dtype")
# What chooses code or the kind of an answer: that is the same for all clients.
_CHOICES = ("attn_implementation", "_attn_implementation", "return_dict", "quantization_config")
_OUTPUTS = "output_"  # output_attentions, output_hidden_states


def model_config(directory: Path, **given: Any) -> Any:
    """Return what config.json says, as transformers has it; raises what transformers or it do.

    Args:
        directory: holds CONFIG.
        given: further fields, as num_labels.
    """
    from transformers import AutoConfig

    about = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    if "auto_map" in about:
        raise ValueError("it names code of its own (auto_map), which is never run")
    if about.get("quantization_config"):
        raise ValueError("its weights are quantized (quantization_config); expected floats")
    about = _needed(about)
    kind = about.pop("model_type", None)
    return AutoConfig.for_model(kind, **{**about, **given})


def needed_config(content: bytes) -> bytes:
    """Return a config.json without what clients need not know."""
    return json.dumps(_needed(json.loads(content)), indent=2).encode()


def words_of(error: Exception, directory: Path) -> str:
    """Return the first line of what transformers says, without the place of the folder."""
    text = str(error).replace(str(directory), directory.name).strip().partition("\n")[0]
    return one_line(text[:300]) or type(error).__name__


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from reporting on stderr what is told in words of ours, if at all."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _needed(about: Mapping[str, Any]) -> dict[str, Any]:
    left_out = (*_LEFT_OUT, *_CHOICES)
    return {k: v for k, v in about.items() if k not in left_out and not k.startswith(_OUTPUTS)}
