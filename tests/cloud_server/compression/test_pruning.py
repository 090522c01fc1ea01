import json

import numpy as np
import pytest

from cloud_server.compression.pruning import prune, prune_encoder
from fleet_model.errors import SettingsError
from fleet_model.weights import read_weights, write_weights

WEIGHTS = {
    "a": np.array([[1, -2], [3, -4]], np.float32),
    "b": np.array([[10, 0.5, -30], [40, 50, 60]], np.float32),
    "bias": np.array([0.1, 0.2], np.float32),
}


def test_the_smallest_of_all_numbers_are_zero():
    made, masks = prune(WEIGHTS, 0.3)
    assert made["a"].tolist() == [[0, 0], [3, -4]]
    assert made["b"].tolist() == [[10, 0, -30], [40, 50, 60]]
    assert made["bias"] is WEIGHTS["bias"]
    assert masks["a"].tolist() == [[False, False], [True, True]]
    assert WEIGHTS["a"][0, 0] == 1


def test_or_the_smallest_of_each_kernel():
    made, _ = prune(WEIGHTS, 0.5, "each")
    assert made["a"].tolist() == [[0, 0], [3, -4]]
    assert made["b"].tolist() == [[0, 0, 0], [40, 50, 60]]


@pytest.mark.parametrize("among", ["all", "each"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.99])
def test_the_share_is_exact_also_of_equal_numbers(share, among):
    weights = {"a": np.ones((10, 10), np.float32), "b": np.full((20, 5), -1.0, np.float32)}
    made, masks = prune(weights, share, among)
    assert sum(np.count_nonzero(made[name] == 0) for name in made) == round(share * 200)
    assert sum(np.count_nonzero(~mask) for mask in masks.values()) == round(share * 200)


def test_tables_of_an_encoder_stay_whole(tmp_path):
    weights = {
        "embeddings.word_embeddings.weight": np.full((3, 2), 1e-9, np.float32),
        "layer.0.lin.weight": np.arange(1, 11, dtype=np.float32).reshape(2, 5),
    }
    write_weights(tmp_path / "model.safetensors", weights)
    (tmp_path / "config.json").write_text(json.dumps({}))
    (tmp_path / "tokenizer.json").write_text("{}")
    (into := tmp_path / "into").mkdir()
    assert prune_encoder(tmp_path, 0.3, into) == pytest.approx(0.3)
    made = read_weights(into / "model.safetensors")
    assert made["layer.0.lin.weight"].tolist() == [[0, 0, 0, 4, 5], [6, 7, 8, 9, 10]]
    assert made["embeddings.word_embeddings.weight"].all()


def test_a_share_of_all_or_no_kernel_is_refused():
    for share in (1.0, -0.1, float("nan")):
        with pytest.raises(SettingsError, match="share to prune"):
            prune(WEIGHTS, share)
    with pytest.raises(SettingsError, match="no kernel to prune"):
        prune(WEIGHTS, 0.5, kept=["a", "b"])
