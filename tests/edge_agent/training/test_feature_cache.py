"""What is kept from one training process to the next."""

import os
import tracemalloc

import numpy as np
import pytest

from edge_agent.training import feature_cache
from edge_agent.training.feature_cache import FeatureCache, cache_of, limit_from_environment
from edge_agent.training.rows import stacked
from fleet_model.bundle import TrainerSpec
from fleet_model.errors import TrainingError
from fleet_model.workloads.image_classifier import ImageClassifier

pytestmark = pytest.mark.base

ROW_BYTES = 4000


def fill(cache: FeatureCache, keys: str) -> str:
    """Run one round over `keys`; return those that had to be computed."""
    computed = []

    def compute(key: str):
        computed.append(key)
        return {"deep": np.full(999, ord(key), np.float32), "wide": np.float32(ord(key))}

    cache.begin()
    for key in keys:
        row = cache.row(key, lambda key=key: compute(key))
        assert row["deep"].tolist() == [ord(key)] * 999
        assert row["wide"] == ord(key)
    cache.end()
    return "".join(computed)


def test_a_later_process_computes_only_what_is_new(tmp_path):
    assert fill(FeatureCache(tmp_path), "abc") == "abc"
    assert fill(FeatureCache(tmp_path), "abcd") == "d"
    assert fill(FeatureCache(tmp_path), "abcd") == ""


def test_a_process_that_is_killed_in_its_first_round_has_not_worked_in_vain(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.begin()
    cache.row("a", lambda: {"deep": np.full(999, 97, np.float32), "wide": np.float32(97)})
    assert fill(FeatureCache(tmp_path), "ab") == "b"


def large(number: int):
    return {"map": np.full((64, 512), number, np.float16), "wide": np.float32(number)}


def rows_of(cache: FeatureCache, numbers, compute=large):
    cache.begin()
    rows = [cache.row(str(number), lambda n=number: compute(n)) for number in numbers]
    cache.end()
    return rows


def test_large_rows_are_read_from_the_file_and_hold_no_memory(tmp_path):
    cache = FeatureCache(tmp_path)
    tracemalloc.start()
    rows = rows_of(cache, range(200))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 4 * large(0)["map"].nbytes  # of 200
    for found in (rows, rows_of(FeatureCache(tmp_path), range(200), None)):
        batch = stacked(found[5:8], 4)
        assert batch["map"].dtype == np.float32  # what models compute with
        assert batch["map"][:, 0, 0].tolist() == [5, 6, 7, 0]
        assert batch["wide"].tolist() == [5, 6, 7, 0]


def test_large_rows_are_still_there_when_the_file_was_written_again(tmp_path):
    rows_of(FeatureCache(tmp_path), range(8))
    rows = rows_of(FeatureCache(tmp_path), range(6, 8), None)  # six of eight are dead
    assert [float(row["map"][0, 0]) for row in rows] == [6, 7]


def test_large_rows_without_room_in_the_file_stay_in_memory(tmp_path):
    cache = FeatureCache(tmp_path, limit_bytes=3 * large(0)["map"].nbytes)
    rows = rows_of(cache, range(6))
    assert [float(row["map"][0, 0]) for row in rows] == [0, 1, 2, 3, 4, 5]


def test_a_large_row_that_can_no_longer_be_read_ends_the_round_and_is_computed_again(tmp_path):
    cache = FeatureCache(tmp_path)
    rows = rows_of(cache, range(3))
    (file,) = tmp_path.iterdir()
    os.truncate(file, 1000)
    with pytest.raises(TrainingError, match=r"cannot be read: it has become shorter; what is"):
        rows[2]["map"]
    assert float(rows_of(cache, range(3))[2]["map"][0, 0]) == 2


def test_rows_whose_examples_are_gone_are_kept_no_longer(tmp_path):
    fill(FeatureCache(tmp_path), "abc")
    fill(FeatureCache(tmp_path), "c")
    assert fill(FeatureCache(tmp_path), "abc") == "ab"
    cache = FeatureCache(tmp_path)
    assert (fill(cache, "abc"), fill(cache, "c"), fill(cache, "abc")) == ("", "", "ab")


def test_few_dead_rows_are_not_worth_writing_the_others_again(tmp_path):
    fill(FeatureCache(tmp_path), "abcdefgh")
    (file,) = tmp_path.iterdir()
    before = file.stat()
    fill(FeatureCache(tmp_path), "bcdefgh")
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    fill(FeatureCache(tmp_path), "gh")
    assert file.stat().st_size < before.st_size / 2


def test_nothing_is_written_where_there_is_no_folder_for_it(tmp_path):
    fill(FeatureCache(tmp_path / "features"), "abc")
    fill(FeatureCache(), "abc")
    assert list(tmp_path.iterdir()) == []


def test_an_unchanged_round_writes_nothing_and_one_new_frame_only_its_row(tmp_path):
    fill(FeatureCache(tmp_path), "abc")
    (file,) = tmp_path.iterdir()
    before, content = file.stat(), file.read_bytes()
    fill(FeatureCache(tmp_path), "abc")
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    fill(FeatureCache(tmp_path), "abcd")
    assert file.read_bytes().startswith(content)
    assert file.stat().st_ino == before.st_ino
    assert ROW_BYTES < file.stat().st_size - before.st_size < 1.1 * ROW_BYTES


def test_a_damaged_file_costs_time_and_nothing_else(tmp_path):
    fill(FeatureCache(tmp_path), "abc")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    assert fill(FeatureCache(tmp_path), "abc") == "c"
    file.write_bytes(b"\0" * 10_000)
    assert fill(FeatureCache(tmp_path), "abc") == "abc"
    assert fill(FeatureCache(tmp_path), "abc") == ""


def test_another_version_of_the_software_computes_its_own_and_removes_the_other(
    tmp_path, monkeypatch
):
    fill(FeatureCache(tmp_path), "abc")
    monkeypatch.setattr(feature_cache, "__version__", "99")
    monkeypatch.setattr(feature_cache, "PICTURES", 7)
    assert fill(FeatureCache(tmp_path), "abc") == "abc"
    assert [file.name for file in tmp_path.iterdir()] == ["99-7.rows"]


def test_rows_of_pictures_that_were_read_in_another_way_are_computed_again_and_the_log_says_so(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    fill(FeatureCache(tmp_path), "abc")
    assert "another release" not in caplog.text
    monkeypatch.setattr(feature_cache, "PICTURES", feature_cache.PICTURES + 1)
    assert fill(FeatureCache(tmp_path), "abc") == "abc"
    assert "features that another release has kept are computed again" in caplog.text


def test_what_an_older_robot_has_kept_is_no_error(tmp_path):
    from safetensors.numpy import save_file

    old = tmp_path / f"{feature_cache.__version__}.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, old)
    assert fill(FeatureCache(tmp_path), "abc") == "abc"
    assert not old.exists()


def test_rows_of_another_trunk_or_framework_are_never_used(tmp_path):
    (tmp_path / "features").mkdir()

    def spec(trunk):
        files = {"trunk.tflite": {"sha256": trunk * 64, "size_bytes": 1}}
        return TrainerSpec.model_validate(
            {
                "workload": {"name": "image-classifier", "config": {}},
                "trainable": "head",
                "tensors": {},
                "batch_size": 1,
                "files": files,
                "parts": {"litert": ["trunk.tflite"]},
            }
        )

    def opened(trunk, framework, **config):
        workload = ImageClassifier(**{"labels": ["a", "b"], **config})
        return cache_of(spec(trunk), workload, tmp_path, framework)

    assert fill(opened("a", "litert"), "abc") == "abc"
    assert fill(opened("a", "litert"), "abc") == ""
    assert fill(opened("a", "litert", labels=["b", "a", "new"]), "abc") == ""  # the same trunk
    assert fill(opened("a", "litert", image_size=64), "abc") == "abc"  # encodes in another way
    assert fill(opened("b", "litert"), "abc") == "abc"
    assert fill(opened("b", "keras"), "abc") == "abc"


def test_beyond_the_limit_only_the_rest_is_computed_again(tmp_path):
    limit = round(4.5 * ROW_BYTES)
    keys = "abcdefgh"
    assert fill(FeatureCache(tmp_path, limit_bytes=limit), keys) == keys
    later = FeatureCache(tmp_path, limit_bytes=limit)
    again = fill(later, keys)
    assert again == "efgh"
    assert fill(later, keys) == again  # not others each time
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= limit
    without_disk = FeatureCache(limit_bytes=limit)
    assert (fill(without_disk, keys), fill(without_disk, keys)) == (keys, again)


def test_beyond_the_limit_rows_that_are_needed_take_the_room_of_those_that_are_not(tmp_path):
    limit = round(4.5 * ROW_BYTES)
    fill(FeatureCache(tmp_path, limit_bytes=limit), "abcd")
    fill(FeatureCache(tmp_path, limit_bytes=limit), "bcdef")
    assert fill(FeatureCache(tmp_path, limit_bytes=limit), "bcdef") == "f"


def test_a_limit_of_nothing_keeps_nothing(tmp_path):
    assert fill(FeatureCache(tmp_path, limit_bytes=0), "ab") == "ab"
    assert fill(FeatureCache(tmp_path, limit_bytes=0), "ab") == "ab"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_is_no_error(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    cache = FeatureCache(tmp_path)
    monkeypatch.setattr(cache._file, "append", refuse)
    assert (fill(cache, "abc"), fill(cache, "abc")) == ("abc", "")
    assert caplog.text.count("features are not kept: No space left on device") == 1
    fill(FeatureCache(tmp_path), "abc")
    cache = FeatureCache(tmp_path)
    monkeypatch.setattr(cache._file, "read", refuse)
    assert fill(cache, "abc") == "abc"


def test_the_limit_is_the_agents(monkeypatch):
    monkeypatch.delenv("EDGE_AGENT_TRAINING__CACHE_MB", raising=False)
    assert limit_from_environment() == 512_000_000
    monkeypatch.setenv("EDGE_AGENT_TRAINING__CACHE_MB", "0.5")
    assert limit_from_environment() == 500_000
