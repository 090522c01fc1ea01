"""Folders with models of LLaVA's layout of a few kilobytes: random weights, real files."""

import json
from pathlib import Path

import cv2
import numpy as np
from tiny_language_models import POSITIONS, SMALL, WORDS, write_tokenizer

MARK = "<image>"
SIZE, PATCH = 16, 8
TOKENS = (SIZE // PATCH) ** 2
IMAGE_TOKEN = len(WORDS)
VISION = {
    "model_type": "clip_vision_model", "image_size": SIZE, "patch_size": PATCH, "hidden_size": 12,
    "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "projection_dim": 8,
}  # fmt: skip
# As the processor of llava-1.5 has it, which takes what is said in parts.
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|> ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
COLORS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def write_files(folder: Path, **vision) -> Path:
    """Write what a client reads; needs the library tokenizers alone."""
    write_tokenizer(folder, chat=False, marks=[MARK])
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    prepared = {
        "size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE},
        "do_center_crop": True, "resample": 3, "image_processor_type": "CLIPImageProcessor",
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    about = {
        "model_type": "llava", "image_token_index": IMAGE_TOKEN, "image_seq_length": TOKENS,
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
        "vision_config": {**VISION, **vision},
        "text_config": {
            "model_type": "llama", "vocab_size": len(WORDS) + 1,
            "max_position_embeddings": POSITIONS, "pad_token_id": 3, **SMALL,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def write_vision_language_model(folder: Path) -> Path:
    """Write the whole folder of a model."""
    import torch
    from transformers import AutoConfig, LlavaForConditionalGeneration

    write_files(folder)
    about = json.loads((folder / "config.json").read_text())
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(AutoConfig.for_model(about.pop("model_type"), **about))
    with torch.no_grad():  # transformers' own numbers are so small that all pictures look alike
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    model.save_pretrained(folder)
    return folder


def write_picture(file: Path, color: str, height: int = 20, width: int = 30) -> Path:
    """Write a picture of nearly one color."""
    random = np.random.default_rng(len(color))
    picture = np.clip(
        np.array(COLORS[color]) + random.integers(-20, 20, (height, width, 3)), 0, 255
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), picture[..., ::-1].astype(np.uint8))
    return file


def write_records(folder: Path, times: int = 1) -> Path:
    """Write a table of what is asked about pictures of a folder, and answered."""
    rows = []
    for color in COLORS:
        for number in range(times):
            name = f"images/{color}-{number}.png"
            write_picture(folder / name, color, 20 + number)
            rows.append({"prompt": "what color is it ?", "image": name, "completion": f" {color}"})
        rows.append({"prompt": f"say {color} twice", "completion": f" {color} {color}"})
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "records.jsonl"


def write_posts(folder: Path, times: int = 8, authors: int = 6) -> Path:
    """Write what a platform exports: posts with pictures, as a chat program names its fields."""
    posts = []
    for number in range(times):
        for color in COLORS:
            photo = f"photos/{color}-{number}.png"
            write_picture(folder / photo, color, 20 + number)
            author = f"user{len(posts) % authors}"
            said = {"text": f"what is it ? a {color} sky", "photo": photo, "from_id": author}
            posts.append({**said, "date": f"2026-12-01T08:{len(posts):02}:00"})
    (folder / "result.json").write_text(json.dumps({"name": folder.name, "messages": posts}))
    return folder
