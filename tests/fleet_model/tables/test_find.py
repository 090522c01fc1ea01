"""Which tables lie at a path."""

import json

import cv2
import numpy as np
import pytest

from edge_agent.data.table_paths import is_tables
from fleet_model.errors import FrameError
from fleet_model.tables.find import table_suffix, tables_at
from fleet_model.tables.rows import split_of

pytestmark = pytest.mark.base


@pytest.fixture
def folder(tmp_path):
    """Return what makes a folder of empty files."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        ("train.csv", False), ("test.jsonl.gz", True), ("data/validation-00000-of-00002.csv", True),
        ("dev/part-1.csv", True), ("train/test.csv", True), ("My-Train-1.csv", False),
        ("tickets.csv", None), ("latest.csv", None), ("training_set.csv", False),
        ("restrained.csv", None), ("imdb-train.arrow", False), ("test_2024/tickets.csv", True),
    ],
)  # fmt: skip
def test_the_split_is_read_from_the_words_of_a_name(name, held_out):
    assert split_of(name) is held_out


def test_a_table_is_known_by_the_end_of_its_name():
    ends = {name: table_suffix(name) for name in ("A.CSV", "a.tsv.gz", "a.ndjson", "a.arrow")}
    assert list(ends.values()) == [".csv", ".tsv", ".ndjson", ".arrow"]
    assert not any(map(table_suffix, ("a.txt", "a.csv.zip", "a.parquet.gz", "csv", "a.png")))


def test_a_folder_gives_its_tables_in_order_and_passes_over_what_is_none(folder):
    root = folder(
        "b/test.csv", "train.jsonl", "notes.txt", "config.json", "valid.json", ".hidden.csv",
        "dataset_info.json.bak", "cache-12.arrow", "x.arrow",
    )  # fmt: skip
    found = [(table.name, table.held_out) for table in tables_at(root)]
    assert found == [("b/test.csv", True), ("train.jsonl", False), ("valid.json", True),
                     ("x.arrow", None)]  # fmt: skip
    assert is_tables(root)
    assert is_tables(root / "train.jsonl")


@pytest.mark.parametrize("other", ["a.jpg", "run_0.mcap", "clip.mp4", "x-train.tfrecord-00000"])
def test_a_folder_with_frames_is_none_of_tables(folder, other):
    assert not is_tables(folder("labels.csv", f"deep/{other}"))


def test_what_is_no_table_is_told(folder):
    root = folder("notes.txt")
    assert not is_tables(root)
    assert not is_tables(root / "gone.csv")
    with pytest.raises(FrameError, match=r"no table lies in it; expected one of \.csv, \.tsv"):
        tables_at(root)
    with pytest.raises(FrameError, match=r"^notes\.txt: is no table"):
        tables_at(root / "notes.txt")
    with pytest.raises(FrameError, match=r"^gone\.csv: no such file or folder$"):
        tables_at(root / "gone.csv")


def saved(folder, split, names=("data-00000-of-00001.arrow",), **more):
    """Write what Dataset.save_to_disk leaves beside the data."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"_data_files": [{"filename": name} for name in names], "_split": split, **more}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"a": {"_type": "Value"}}}))
    for name in names:
        (folder / name).touch()
    return folder


def test_what_datasets_saved_is_read_by_its_own_lists(tmp_path):
    one = saved(tmp_path / "one", "test", ("data-1.arrow", "data-0.arrow"))
    (one / "data-old.arrow").touch()
    found = tables_at(one)
    assert [(t.name, t.held_out) for t in found] == [("data-1.arrow", True), ("data-0.arrow", True)]
    assert found[0].features == {"a": {"_type": "Value"}}
    for split in ("train", "validation"):
        saved(tmp_path / "both" / split, split)
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    found = [(table.name, table.held_out) for table in tables_at(tmp_path / "both")]
    name = "data-00000-of-00001.arrow"
    assert found == [(f"train/{name}", False), (f"validation/{name}", True)]


def test_damaged_lists_of_datasets_are_one_line(tmp_path):
    one = saved(tmp_path / "one", "train", _indices_files=[{"filename": "i.arrow"}])
    with pytest.raises(FrameError, match="saved by an old version of datasets"):
        tables_at(one)
    (tmp_path / "secret.arrow").touch()
    (one / "state.json").write_text('{"_data_files": [{"filename": "../secret.arrow"}]}')
    with pytest.raises(FrameError, match=r"^one: state\.json names a data file that is not there"):
        tables_at(one)
    (one / "state.json").write_text("{")
    with pytest.raises(FrameError, match=r"^one/state\.json: is damaged$"):
        tables_at(one)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["../one"]}')
    with pytest.raises(FrameError, match="names a split that is not there"):
        tables_at(tmp_path)


@pytest.mark.parametrize("split", ["..", ".", "", "train/", "train/../train", "/", None])
def test_a_split_is_a_folder_beside_the_list_of_splits(tmp_path, split):
    saved(tmp_path, "train")
    saved(tmp_path / "both" / "train", "train")
    (tmp_path / "both" / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
    with pytest.raises(FrameError, match=r"^both: dataset_dict\.json names a split that is not"):
        tables_at(tmp_path / "both")


def test_a_split_that_is_named_twice_is_read_once(tmp_path):
    saved(tmp_path / "train", "train")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "train"]}')
    assert len(tables_at(tmp_path)) == 1


def test_a_picture_data_set_with_a_table_stays_one_of_pictures(tmp_path):
    (tmp_path / "circle").mkdir()
    cv2.imwrite(str(tmp_path / "circle" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "labels.csv").write_text("file,label\ncircle/a.png,circle\n")
    assert not is_tables(tmp_path)
