"""What is kept from one training process to the next."""

import numpy as np
import pytest

from edge_agent.training import feature_cache
from edge_agent.training.feature_cache import FeatureCache

pytestmark = pytest.mark.base


def fill(cache: FeatureCache, keys: str) -> str:
    """Run one round over `keys`; return those that had to be computed."""
    computed = []

    def compute(key: str):
        computed.append(key)
        return {"features": np.full(3, ord(key), np.float32), "speed": np.array(ord(key))}

    cache.begin()
    for key in keys:
        row = cache.row(key, lambda key=key: compute(key))
        assert row["features"].tolist() == [ord(key)] * 3
        assert row["speed"] == ord(key)
    cache.end()
    return "".join(computed)


def test_a_later_process_computes_only_what_is_new(tmp_path):
    assert fill(FeatureCache(tmp_path), "abc") == "abc"
    assert fill(FeatureCache(tmp_path), "abcd") == "d"
    assert fill(FeatureCache(tmp_path), "abcd") == ""


def test_rows_whose_examples_are_gone_are_kept_no_longer(tmp_path):
    fill(FeatureCache(tmp_path), "abc")
    fill(FeatureCache(tmp_path), "c")
    assert fill(FeatureCache(tmp_path), "abc") == "ab"


def test_nothing_is_written_where_there_is_no_folder_for_it(tmp_path):
    fill(FeatureCache(tmp_path / "features"), "abc")
    fill(FeatureCache(), "abc")
    assert list(tmp_path.iterdir()) == []


def test_an_unchanged_round_writes_nothing(tmp_path):
    cache = FeatureCache(tmp_path)
    fill(cache, "abc")
    (file,) = tmp_path.iterdir()
    file.unlink()
    fill(cache, "abc")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_costs_time_and_nothing_else(tmp_path):
    fill(FeatureCache(tmp_path), "abc")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    assert fill(FeatureCache(tmp_path), "abc") == "abc"
    assert fill(FeatureCache(tmp_path), "abc") == ""


def test_another_version_of_the_software_computes_its_own(tmp_path, monkeypatch):
    fill(FeatureCache(tmp_path), "abc")
    monkeypatch.setattr(feature_cache, "__version__", "99")
    assert fill(FeatureCache(tmp_path), "abc") == "abc"


def test_more_than_is_worth_reading_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "KEPT_BYTES", 30)
    fill(FeatureCache(tmp_path), "abc")
    assert list(tmp_path.iterdir()) == []
