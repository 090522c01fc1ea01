"""Adapters as files that the library peft loads, with whatever a rule has added to them."""

import json

import numpy as np
import pytest

from fleet_model.adapters.lora import first_factors
from fleet_model.adapters.spec import LoraSpec
from fleet_model.errors import BundleError
from fleet_model.weights import read_weights, write_weights
from fleet_model.workloads.causal_lm.peft_files import (
    ADAPTER,
    ADAPTER_CONFIG,
    read_adapter,
    write_adapter,
)

TARGETS = {"model/layers/0/q_proj/kernel": (8, 8), "model/layers/0/v_proj/kernel": (8, 4)}
SPEC = LoraSpec(rank=2, alpha=6.0, dropout=0.1, targets=TARGETS)


def path(name):
    return name.replace(".", "/")


def weights(residual=False):
    random = np.random.default_rng(0)
    found = {n: w + random.normal(0, 1, w.shape) for n, w in first_factors(SPEC).items()}
    if residual:
        one, other = random.normal(0, 1, (8, 3)), random.normal(0, 1, (3, 8))
        found["model/layers/0/q_proj/kernel.lora_residual"] = one @ other
    return {name: tensor.astype(np.float32) for name, tensor in found.items()}


def change(spec, found, target):
    a, b = found[target + ".lora_a"], found[target + ".lora_b"]
    return spec.scale * (a @ b + found.get(target + ".lora_residual", 0))


@pytest.mark.parametrize("residual", [False, True])
def test_what_is_read_computes_what_was_written(tmp_path, residual):
    given = weights(residual)
    rank = write_adapter(SPEC, given, tmp_path)
    assert rank == (5 if residual else 2)
    spec, found = read_adapter(tmp_path, path)
    assert (spec.rank, spec.scale, spec.targets) == (rank, SPEC.scale, TARGETS)
    for target in TARGETS:
        expected = change(SPEC, given, target)
        np.testing.assert_allclose(change(spec, found, target), expected, atol=1e-4)


def test_names_and_shapes_are_those_of_peft(tmp_path):
    given = weights()
    write_adapter(SPEC, given, tmp_path)
    found = read_weights(tmp_path / ADAPTER)
    assert {name: tensor.shape for name, tensor in found.items()} == {
        "base_model.model.model.layers.0.q_proj.lora_A.weight": (2, 8),
        "base_model.model.model.layers.0.q_proj.lora_B.weight": (8, 2),
        "base_model.model.model.layers.0.v_proj.lora_A.weight": (2, 8),
        "base_model.model.model.layers.0.v_proj.lora_B.weight": (4, 2),
    }
    a = given["model/layers/0/q_proj/kernel.lora_a"]
    theirs = found["base_model.model.model.layers.0.q_proj.lora_A.weight"]
    np.testing.assert_array_equal(theirs, a.T)
    about = json.loads((tmp_path / ADAPTER_CONFIG).read_text())
    assert (about["r"], about["lora_alpha"], about["peft_type"]) == (2, 6.0, "LORA")


def test_a_part_of_an_adapter_is_refused(tmp_path):
    """peft itself loads it without a word (surprising, and wrong)."""
    write_adapter(SPEC, weights(), tmp_path)
    found = dict(read_weights(tmp_path / ADAPTER))
    del found[sorted(found)[0]]
    write_weights(tmp_path / ADAPTER, found)
    with pytest.raises(BundleError, match="only a part of the adapter"):
        read_adapter(tmp_path, path)


@pytest.mark.parametrize(("name", "words"), [(ADAPTER, "adapter_model"), (ADAPTER_CONFIG, "no ad")])
def test_a_damaged_file_is_refused(tmp_path, name, words):
    write_adapter(SPEC, weights(), tmp_path)
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(BundleError, match=words):
        read_adapter(tmp_path, path)
    (tmp_path / name).unlink()
    with pytest.raises(BundleError):
        read_adapter(tmp_path, path)
