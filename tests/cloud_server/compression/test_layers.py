import json

import numpy as np
import pytest

from cloud_server.compression.layers import narrow, take_layers
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.weights import read_weights, write_weights

NAMES = {
    "n_layers": ("distilbert.transformer.layer.{}.", "ffn.lin1", "ffn.lin2", "hidden_dim"),
    "num_hidden_layers": (
        "bert.encoder.layer.{}.", "intermediate.dense", "output.dense", "intermediate_size",
    ),
}  # fmt: skip


def folder(path, kind, layers=3):
    """Three layers of width 2 with 4 neurons; every number tells its layer."""
    layer, first, second, width = NAMES[kind]
    weights = {"embeddings.word_embeddings.weight": np.ones((5, 2), np.float32)}
    for number in range(layers):
        start = layer.format(number)
        weights |= {
            f"{start}{first}.weight": np.array([[1, 0], [4, 0], [2, 0], [3, 0]], np.float32),
            f"{start}{first}.bias": np.array([10, 11, 12, 13], np.float32) + number,
            f"{start}{second}.weight": np.array([[9, 1, 1, 1], [0, 0, 0, 0]], np.float32),
            f"{start}attention.output.dense.weight": np.full((2, 2), number, np.float32),
        }
    path.mkdir()
    write_weights(path / "model.safetensors", weights)
    (path / "config.json").write_text(json.dumps({kind: layers, width: 4}))
    (path / "tokenizer.json").write_text("{}")
    (path / "into").mkdir()
    return path, path / "into", layer


@pytest.mark.parametrize("kind", NAMES)
def test_layers_are_taken_unchanged_and_numbered_anew(tmp_path, kind):
    model, into, layer = folder(tmp_path / "m", kind)
    take_layers(model, [0, 2], into)
    old, new = (read_weights(path / "model.safetensors") for path in (model, into))
    assert len(new) == 1 + 2 * 4
    for number, was in enumerate([0, 2]):
        for name, tensor in old.items():
            if name.startswith(layer.format(was)):
                other = name.replace(layer.format(was), layer.format(number))
                assert new[other].tobytes() == tensor.tobytes()
    assert json.loads((into / "config.json").read_text())[kind] == 2


@pytest.mark.parametrize("kind", NAMES)
def test_the_weakest_neurons_go_with_their_numbers_on_both_sides(tmp_path, kind):
    model, into, layer = folder(tmp_path / "m", kind)
    stay = narrow(model, 0.5, into)
    # Strength: length in times length out: 1 * 9, 4 * 1, 2 * 1, 3 * 1.
    assert [one.tolist() for one in stay] == [[0, 1]] * 3
    _, first, second, width = NAMES[kind]
    new = read_weights(into / "model.safetensors")
    assert new[f"{layer.format(2)}{first}.weight"].tolist() == [[1, 0], [4, 0]]
    assert new[f"{layer.format(2)}{first}.bias"].tolist() == [12, 13]
    assert new[f"{layer.format(2)}{second}.weight"].tolist() == [[9, 1], [0, 0]]
    assert new[f"{layer.format(1)}attention.output.dense.weight"].shape == (2, 2)
    assert json.loads((into / "config.json").read_text())[width] == 2


def test_what_is_not_there_is_refused(tmp_path):
    model, into, _ = folder(tmp_path / "m", "n_layers")
    for chosen in ([], [3], [-1]):
        with pytest.raises(SettingsError, match="it has 0 to 2"):
            take_layers(model, chosen, into)
    with pytest.raises(SettingsError, match="share of neurons is 1"):
        narrow(model, 1.0, into)
    write_weights(model / "model.safetensors", {"conv": np.ones((2, 2), np.float32)})
    with pytest.raises(CheckpointError, match="not named by layers"):
        take_layers(model, [0], into)
    with pytest.raises(CheckpointError, match="has no layers of"):
        narrow(model, 0.5, into)
    (model / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="has no readable config"):
        narrow(model, 0.5, into)
