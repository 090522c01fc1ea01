"""Profiles on the server's disk."""

import numpy as np
import pytest

from cloud_server.profiles.store import ProfileStore
from fleet_model.errors import CheckpointError, StorageError
from fleet_model.profiles.profile import Group, SourceProfile, pack_profile


def tensors(records=20):
    whole = Group(records=records, mean=np.zeros(2, np.float32))
    return pack_profile({"board": SourceProfile(whole=whole)})


def test_a_robot_has_one_profile_of_each_version(tmp_path):
    store = ProfileStore(tmp_path / "profiles")
    assert (store.versions(), store.of(3)) == ([], {})
    for robot, version, records in (("a/b", 3, 20), ("a/b", 3, 25), ("c", 3, 20), ("a/b", 12, 30)):
        store.save(robot, version, tensors(records))
    assert store.versions() == [3, 12]
    told = store.of(3)
    assert {name: one["board"].whole.records for name, one in told.items()} == {"a/b": 25, "c": 20}
    store.forget("a/b")
    assert (list(store.of(3)), list(store.of(12))) == (["c"], [])


def test_old_versions_go(tmp_path):
    store = ProfileStore(tmp_path)
    for version in range(13):
        store.save("a", version, tensors())
    store.prune()
    assert store.versions() == list(range(3, 13))


def test_damage_is_told(tmp_path):
    store = ProfileStore(tmp_path)
    store.save("a", 1, {"about": np.zeros(1, np.float16), "means": np.zeros((1, 2), np.float32)})
    with pytest.raises(CheckpointError, match=r"profiles/1/a\.safetensors is damaged .*ask anew"):
        store.of(1)
    (tmp_path / "1" / "a.safetensors").write_bytes(b"no file")
    with pytest.raises(CheckpointError):
        store.of(1)
    (tmp_path / "2").write_text("in the way")
    with pytest.raises(StorageError, match="the profile of a cannot be kept"):
        store.save("a", 2, tensors())
