"""Make an encoder smaller by leaving out whole layers, or neurons within them, in NumPy."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cloud_server.compression.folders import (
    LAYER,
    field,
    layers_of,
    read_encoder,
    write_encoder,
)
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.types import Tensor

# The two dense layers behind attention, as DistilBERT, and BERT and RoBERTa, name them.
_IN = re.compile(r"(.*layers?\.\d+\.)(ffn\.lin1|intermediate\.dense)\.weight")
_OUT = {"ffn.lin1": "ffn.lin2", "intermediate.dense": "output.dense"}


def take_layers(model: Path, chosen: Sequence[int], into: Path) -> None:
    """Write an encoder with some of the layers of another one, unchanged, in this order.

    Args:
        model: folder with config.json, model.safetensors, tokenizer.json.
        chosen: numbers of its layers, from 0.
        into: an empty folder.

    Raises:
        CheckpointError: the folder has no layers that are known.
        SettingsError: there is no such layer, or none is chosen.
    """
    config, weights = read_encoder(model)
    count = layers_of(weights)
    if not chosen or any(not 0 <= number < count for number in chosen):
        raise SettingsError(
            f"layers {', '.join(map(str, chosen)) or '(none)'} of {model.name}: it has 0 to "
            f"{count - 1}; choose one at least"
        )
    kept = {name: tensor for name, tensor in weights.items() if not LAYER.search(name)}
    for new, old in enumerate(chosen):
        for name, tensor in weights.items():
            found = LAYER.search(name)
            if found and int(found[1]) == old:
                kept[f"{name[: found.start(1)]}{new}{name[found.end(1) :]}"] = tensor
    config[field(config, "n_layers", "num_hidden_layers")] = len(chosen)
    write_encoder(into, config, kept, model)


def narrow(model: Path, share: float, into: Path) -> list[Tensor]:
    """Write an encoder without the weakest neurons behind attention; return which ones stay.

    The file shrinks, and each answer costs less: structured pruning. A neuron counts as much as
    the length of what goes in times the length of what goes out. Each layer loses as many.

    Args:
        model: folder as above.
        share: of the neurons that are left out, 0 <= share < 1.
        into: an empty folder.

    Returns:
        for each layer the numbers of the neurons that stay, growing.

    Raises:
        CheckpointError: the folder has no such layers.
        SettingsError: `share` is no such number.
    """
    if not 0 <= share < 1:
        raise SettingsError(f"share of neurons is {share:g}, expected 0 or more and less than 1")
    config, weights = read_encoder(model)
    made, stay = dict(weights), list[Tensor]()
    dense = [found for name in weights if (found := _IN.fullmatch(name))]
    for found in sorted(dense, key=lambda one: int(LAYER.search(one[0])[1])):  # type: ignore[index]
        name = found[0]
        start, inner = found[1] + found[2], found[1] + _OUT[found[2]]
        if f"{inner}.weight" not in weights or f"{start}.bias" not in weights:
            raise CheckpointError(f"{model.name}: {name} has no {inner}.weight behind it")
        into_neuron, out_of_it = weights[name], weights[f"{inner}.weight"]
        strength = np.linalg.norm(into_neuron, axis=1) * np.linalg.norm(out_of_it, axis=0)
        count = max(1, len(strength) - round(share * len(strength)))
        kept = np.sort(np.argsort(-strength, kind="stable")[:count])
        made[name] = np.ascontiguousarray(into_neuron[kept])
        made[f"{start}.bias"] = np.ascontiguousarray(weights[f"{start}.bias"][kept])
        made[f"{inner}.weight"] = np.ascontiguousarray(out_of_it[:, kept])
        stay.append(kept)
    if not stay:
        raise CheckpointError(f"{model.name}: has no layers of DistilBERT, BERT or RoBERTa")
    config[field(config, "hidden_dim", "intermediate_size")] = len(stay[0])
    write_encoder(into, config, made, model)
    return stay
