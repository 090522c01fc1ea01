"""The model that server and clients build alike: an encoder of a folder, and a new head."""

from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

LABELS = ["negative", "positive"]
HEAD = ["pre_classifier", "classifier"]


def build(encoder: Path, layers: int, *, adapter: bool) -> Any:
    """Return a DistilBERT of which the last layers and the head are trained.

    Args:
        encoder: a folder as `save_pretrained` writes it.
        layers: that are trained.
        adapter: LoRA on the kernels of these layers, or the layers themselves.
    """
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=len(LABELS))
    every = model.config.n_layers
    last = list(range(every - layers, every))
    if adapter:
        lora = LoraConfig(
            task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.05,
            target_modules=["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
            layers_to_transform=last, layers_pattern="layer", modules_to_save=HEAD,
        )  # fmt: skip
        return get_peft_model(model, lora)
    for name, parameter in model.named_parameters():
        in_last = any(f".layer.{number}." in name for number in last)
        parameter.requires_grad_(in_last or name.split(".")[0] in HEAD)
    return model


def arrays_of(model: Any, *, adapter: bool) -> ArrayRecord:
    """Return what travels: adapters and head, or the whole state."""
    return ArrayRecord(get_peft_model_state_dict(model) if adapter else model.state_dict())


def set_arrays(model: Any, arrays: ArrayRecord, *, adapter: bool) -> None:
    """Give a model what has travelled."""
    state = arrays.to_torch_state_dict()
    if adapter:
        set_peft_model_state_dict(model, state)
    else:
        model.load_state_dict(state)


def tokenizer_of(encoder: Path) -> Any:
    """Return the tokenizer of a folder."""
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_file=str(encoder / "tokenizer.json"), **names)
