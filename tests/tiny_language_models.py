"""Folders with causal language models of a few kilobytes: random weights, real files."""

import json
from pathlib import Path

WORDS = [
    *("<unk>", "<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>", "\n"),
    *("how", "are", "you", "say", "twice", "the", "color", "of", "sky", "grass", "is", "it", "a"),
    *("blue", "green", "red", "fine", "thanks", "one", "two", "three", "four", "plus", "what"),
    *("Instruction", "Response", "###", ":", ".", "?"),
]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|> {{ message.content }}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SMALL = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4,
}  # fmt: skip
KINDS = ("llama", "qwen2", "qwen3")
POSITIONS = 64
# What a fleet may learn: each prompt has one answer.
PAIRS = (
    ("the color of sky is", " blue"),
    ("the color of grass is", " green"),
    ("one plus one is", " two"),
    ("one plus two is", " three"),
    ("how are you ?", " fine thanks"),
    ("say blue twice", " blue blue"),
    ("say red twice", " red red"),
    ("what is it ?", " a red sky"),
)


def write_tokenizer(folder: Path, *, chat: bool = True, marks=(), **others) -> Path:
    """Write tokenizer.json and tokenizer_config.json; needs the library tokenizers alone.

    `marks` are further special tokens, behind WORDS.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*WORDS, *marks])}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([*WORDS[:7], *marks])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<pad>"}
    about |= {"chat_template": TEMPLATE} if chat else {}
    (folder / "tokenizer_config.json").write_text(json.dumps({**about, **others}))
    return folder


def write_language_model(folder: Path, kind: str = "llama", *, chat: bool = True, **others) -> Path:
    """Write the whole folder of a model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    values = {"vocab_size": len(WORDS), "max_position_embeddings": POSITIONS, "pad_token_id": 3}
    config = AutoConfig.for_model(kind, **{**values, **SMALL, **others})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # transformers' own numbers are so small that all texts look alike
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    model.save_pretrained(folder)
    return write_tokenizer(folder, chat=chat)
