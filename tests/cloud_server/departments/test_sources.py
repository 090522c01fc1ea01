"""Which adapter a department should have, and whether it may be used."""

import json

import numpy as np
import pytest
from tiny_versions import TINY, write_versions

from cloud_server.departments.sources import FolderSource, StoreSource, source_of
from cloud_server.departments.verified import verified
from cloud_server.robots.register import Register
from cloud_server.state.model_store import DirectoryStore
from fleet_model.adapters.spec import LoraSpec
from fleet_model.errors import BundleError, SettingsError
from fleet_model.weights import read_weights, write_weights
from fleet_model.workloads.causal_lm.peft_files import ADAPTER, ADAPTER_CONFIG, write_adapter

BASE = LoraSpec(rank=2, alpha=4.0, targets={"layers/0/q_proj/kernel": (6, 4), "layers/0/v_proj/kernel": (6, 4)})  # fmt: skip # noqa: E501


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    random = np.random.default_rng(0)
    weights = {n: random.normal(size=s).astype(np.float32) for n, s in BASE.factors.items()}
    write_adapter(BASE, weights, folder)
    return folder


def about(folder, **changed):
    file = folder / ADAPTER_CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def tensors(folder, change):
    found = {name: tensor.copy() for name, tensor in read_weights(folder / ADAPTER).items()}
    change(found)
    write_weights(folder / ADAPTER, found)


def first(found):
    return found[min(found)]


def without_a_layer(found):
    for name in [name for name in found if "q_proj" in name]:
        del found[name]


def as_integers(found):
    found.update({name: tensor.astype(np.int32) for name, tensor in found.items()})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / ADAPTER).unlink(), "no such file"),
        (lambda f: (f / ADAPTER).write_bytes(b"x" * 50), "not a readable safetensors file"),
        (lambda f: (f / ADAPTER_CONFIG).write_text("{"), "is no adapter's"),
        (lambda f: (f / ADAPTER_CONFIG).write_text("[]"), "is no adapter's"),
        (lambda f: about(f, r=0), "adapter"),
        (lambda f: about(f, r=3), "only a part of the adapter"),
        (lambda f: about(f, lora_alpha=float("nan")), "is no adapter's"),
        (lambda f: about(f, use_rslora=True), "use_rslora is True"),
        (lambda f: about(f, alpha_pattern={"q_proj": 1}), "alpha_pattern"),
        (lambda f: tensors(f, lambda t: first(t).fill(np.nan)), "holds NaN or infinity"),
        (lambda f: tensors(f, lambda t: t.pop(min(t))), "only a part of the adapter"),
        (lambda f: tensors(f, without_a_layer), "and the fleet's own alone"),
        (lambda f: tensors(f, as_integers), "expected floats"),
    ],
)  # fmt: skip
def test_an_adapter_that_is_not_whole_or_of_this_base_is_refused(adapter, damage, words):
    assert verified(adapter, BASE).rank == 2
    damage(adapter)
    with pytest.raises(BundleError, match=words):
        verified(adapter, BASE)


def test_the_same_files_have_the_same_key_and_others_another(adapter, tmp_path):
    before = verified(adapter, BASE).key
    assert verified(adapter, BASE).key == before
    about(adapter, lora_alpha=5.0)
    assert verified(adapter, BASE).key != before


def test_the_newest_round_of_each_department_counts(tmp_path, adapter):
    for place in ("round-000002/books", "round-000010/books", "round-000009/toys", "round-000010/.new"):  # fmt: skip # noqa: E501
        (tmp_path / "all" / place).mkdir(parents=True)
    found = FolderSource(tmp_path / "all").look()
    assert {name: one.what for name, one in found.items()} == {"books": "round 10", "toys": "round 9"}  # fmt: skip # noqa: E501
    before = found["toys"].stamp
    for name in (ADAPTER, ADAPTER_CONFIG):
        (tmp_path / "all/round-000009/toys" / name).write_bytes((adapter / name).read_bytes())
    after = FolderSource(tmp_path / "all").look()["toys"]
    assert after.stamp != before
    (tmp_path / "into").mkdir()
    after.bring(tmp_path / "into")
    assert verified(tmp_path / "into", BASE).rank == 2
    with pytest.raises(BundleError, match="books"):
        found["books"].bring(tmp_path / "into")


def published(server_dir, *versions):
    store = DirectoryStore(server_dir.store)
    for version in versions:
        bundle = write_versions(server_dir.root / f"made-{version}", version)
        store.add(bundle / "versions" / str(version), TINY)
    return store


def test_a_store_gives_sites_their_own_version_or_the_channels(server_dir):
    source = source_of(server_dir, "stable", None, {})
    assert isinstance(source, StoreSource)
    store = published(server_dir, 4, 5)
    with pytest.raises(BundleError, match="channel other offers nothing yet"):
        source_of(server_dir, "other", None, {}).look()
    store.offer("stable", 4)
    store.offer("stable/sites/hall-1", 5)
    assert {name: one.what for name, one in source.look().items()} == {"fleet": "version 4", "hall-1": "version 5"}  # fmt: skip # noqa: E501
    with pytest.raises(BundleError, match="version 4 has no adapter_config"):
        source.look()["fleet"].bring(server_dir.root)
    assert len(Register(server_dir.robots).robots()) == 0
    (server_dir.rehearsed).mkdir(parents=True)
    assert isinstance(source_of(server_dir, "stable", None, {}), FolderSource)
    with pytest.raises(SettingsError, match="no such folder"):
        source_of(server_dir, "stable", server_dir.root / "none", {})
