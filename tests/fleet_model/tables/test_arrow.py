"""Parquet and Arrow files as pyarrow and datasets write them."""

import json
import struct
import sys

import pytest

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.tables.arrow import ArrowTable

FEATURES = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}


@pytest.fixture
def pa():
    import pyarrow as pa
    import pyarrow.parquet

    return pa


@pytest.fixture
def table(pa):
    """Return a table as `datasets` makes it: its features are in the metadata."""
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    columns = {
        "text": pa.array(["a", "b", None, "d"]),
        "label": pa.array([0, 1, 1, -1], pa.int64()),
        "vector": pa.array([[1.0, 2.0]] * 4),
        "image": pa.array([{"bytes": b"x"}] * 4),
        "stars": pa.array([1.0, 2.0, None, 4.0]),
    }
    return pa.table(columns).replace_schema_metadata(metadata)


ROWS = [
    (1, {"text": "a", "label": "bad", "stars": 1.0}),
    (2, {"text": "b", "label": "good", "stars": 2.0}),
    (3, {"text": None, "label": "good", "stars": None}),
    (4, {"text": "d", "label": None, "stars": 4.0}),
]


def write(pa, table, path):
    """Write a table as the file's name says: Parquet, Arrow's stream or Arrow's file."""
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path, row_group_size=3)
        return path
    make = pa.ipc.new_file if "file" in path.name else pa.ipc.new_stream
    with path.open("wb") as stream, make(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return path


NAMES = ["t.parquet", "stream.arrow", "file.arrow"]


def read(path, columns=None, features=None):
    damage = DamageLog()
    table = ArrowTable(path, path.name, None, features or {})
    return [(row.number, row.cells) for row in table.rows(damage, columns)], damage


@pytest.mark.parametrize("name", NAMES)
def test_rows_have_class_names_and_neither_vectors_nor_pictures(pa, table, tmp_path, name):
    rows, damage = read(write(pa, table, tmp_path / name))
    assert rows == ROWS
    assert not damage


@pytest.mark.parametrize("name", NAMES)
def test_only_columns_that_are_wanted_are_read(pa, table, tmp_path, name):
    rows, _ = read(write(pa, table, tmp_path / name), {"label", "gone"})
    assert rows[:2] == [(1, {"label": "bad"}), (2, {"label": "good"})]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_a_table_without_the_wanted_columns_has_its_rows_all_the_same(pa, table, tmp_path, name):
    """What reads it says then which column is missing; without rows nobody would ask."""
    write(pa, table, tmp_path / name)
    rows = list(ArrowTable(tmp_path / name, name).rows(DamageLog(), ["body"]))
    assert [(row.number, row.cells) for row in rows] == [(n, {}) for n in (1, 2, 3, 4)]


def test_features_beside_the_file_stand_in_for_those_in_it(pa, table, tmp_path):
    path = write(pa, table.replace_schema_metadata(None), tmp_path / "t.parquet")
    assert [cells["label"] for _, cells in read(path)[0]] == [0, 1, 1, -1]
    rows, _ = read(path, features=FEATURES)
    assert [cells["label"] for _, cells in rows] == ["bad", "good", "good", None]


def test_words_of_a_dictionary_and_lists_of_classes_are_read(pa, tmp_path):
    columns = {
        "text": pa.array(["x", "y"]).dictionary_encode(),
        "labels": pa.array([[1], [0, 1]]),
    }
    features = {"labels": {"feature": FEATURES["label"], "_type": "Sequence"}}
    path = write(pa, pa.table(columns), tmp_path / "t.parquet")
    rows, _ = read(path, features=features)
    assert rows == [
        (1, {"text": "x", "labels": ["good"]}),
        (2, {"text": "y", "labels": ["bad", "good"]}),
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"no table", b"PAR1" + bytes(40) + b"PAR1"])
def test_what_is_no_such_file_is_one_line_without_a_path(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FrameError, match=r"is no (Parquet|Arrow) file, or a damaged one") as error:
        read(tmp_path / name)
    assert str(tmp_path) not in str(error.value)


def test_a_cut_stream_gives_its_whole_batches(pa, tmp_path):
    table = pa.table({"text": [f"number {n}" for n in range(100)]})
    with (tmp_path / "t.arrow").open("wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    content = (tmp_path / "t.arrow").read_bytes()
    (tmp_path / "t.arrow").write_bytes(content[: len(content) // 2])
    rows, damage = read(tmp_path / "t.arrow")
    assert 0 < len(rows) < 100
    assert damage.sentence() == f"1 x cut file, first t.arrow after row {len(rows)}"


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (struct.pack("<4i", 0, 4, 8, 12), struct.pack("<4i", 0, 4, 2**30, 12)),
        (b"t  7", b"\xff  7"),
        (struct.pack("<3i", 4, 8, 12), struct.pack("<3i", 8, 4, 12)),
    ],
)
@pytest.mark.parametrize("name", ["stream.arrow", "file.arrow"])
def test_a_damaged_batch_is_left_out_and_does_not_end_the_program(pa, tmp_path, name, good, bad):
    """Unseen, pyarrow reads memory beyond the file by such numbers."""
    batches = [
        pa.record_batch({"text": [f"t{n:3}" for n in range(start, start + 3)]})
        for start in (0, 3, 6)
    ]
    path = write(pa, pa.Table.from_batches(batches), tmp_path / name)
    content = path.read_bytes()
    assert good in content
    path.write_bytes(content.replace(good, bad, 1))
    rows, damage = read(path)
    assert len(rows) == 6
    first = 7 if b"7" in good else 1
    assert damage.sentence() == f"3 x damaged row, first {name} row {first}"


@pytest.mark.base
def test_without_pyarrow_the_command_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(FrameError, match=r"^t\.parquet: needs pyarrow; run: pip install 'fleetl"):
        read(tmp_path / "t.parquet")
