"""Folders of Hugging Face's layout with encoders of a few kilobytes: random weights, real files."""

import json
from pathlib import Path

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "the",
    "a",
    "is",
    "was",
    "film",
    "door",
    "lift",
    "robot",
    "good",
    "great",
    "fine",
    "bad",
    "poor",
    "broken",
    "not",
    "very",
    "so",
    "and",
    ",",
    ".",
    "!",
    "?",
    "it",
    "we",
    "i",
    "this",
    "that",
    "of",
    "to",
    "in",
    "on",
    "with",
]
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
# As DistilBERT, BERT, RoBERTa, CamemBERT have them; positions of the last two begin at 2.
CONFIGS = {
    "distilbert": {"dim": 16, "hidden_dim": 32, "n_heads": 2, "n_layers": 2},
    "bert": {**SMALL, "num_hidden_layers": 2},
    "roberta": {**SMALL, "num_hidden_layers": 2, "type_vocab_size": 1},
    "camembert": {**SMALL, "num_hidden_layers": 2, "type_vocab_size": 1},
}
POSITIONS = 34


def write_tokenizer(folder: Path, words=WORDS) -> Path:
    """Write tokenizer.json of words; needs the library tokenizers alone."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(w, words.index(w)) for w in ("[CLS]", "[SEP]")],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_encoder(folder: Path, kind: str = "distilbert", labels: int = 0, **others) -> Path:
    """Write the whole folder of an encoder; with `labels` it has a head already."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    torch.manual_seed(0)
    values = {"vocab_size": len(WORDS), "max_position_embeddings": POSITIONS, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, **{**values, **CONFIGS.get(kind, {}), **others})
    if labels:
        config.num_labels = labels
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = AutoModel.from_config(config)
    with torch.no_grad():  # transformers' own numbers are so small that all texts look alike
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    return write_tokenizer(folder)


def texts(count: int) -> list[tuple[str, str]]:
    """Return (text, label): "good" or "bad" by one word of it, of different lengths."""
    import random

    draw = random.Random(7)
    found = []
    for number in range(count):
        label = ("good", "bad")[number % 2]
        word = draw.choice(
            {"good": ("good", "great", "fine"), "bad": ("bad", "poor", "broken")}[label]
        )
        rest = draw.choices(WORDS[4:10], k=draw.randrange(1, 12))
        rest.insert(draw.randrange(len(rest) + 1), word)
        found.append((" ".join(rest), label))
    return found
