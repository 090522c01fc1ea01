"""Texts with labels of all tables at a path."""

import json

import pytest

from fleet_model.errors import FrameError, SettingsError
from fleet_model.files.damage import DamageLog
from fleet_model.tables.columns import Columns
from fleet_model.tables.texts import TextTables

pytestmark = pytest.mark.base

HEAD = "id,text,label\n"


def read(path, *arguments, **more):
    damage = DamageLog()
    rows = list(TextTables(path, *arguments, **more).rows(damage))
    return rows, {loss.kind: (loss.count, loss.begins) for loss in damage.all()}


def test_a_row_has_its_place_id_text_and_label(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(HEAD + "T-1, one fine day ,sun \nT-2,it rains,\nT-3,it rains,rain\n" * 1)
    (first, second, third), damage = read(path)
    assert first == ("t.csv", 2, "T-1", " one fine day ", "sun", None, None, {})
    assert (second.label, third.place, damage) == ("", "t.csv line 4", {})


def test_rows_without_a_text_or_with_labels_that_are_no_words_are_counted(tmp_path):
    path = tmp_path / "t.jsonl"
    cells = [
        {"text": "good morning all", "label": "a"}, {"text": " \n", "label": "a"}, {"label": "a"},
        {"text": ["x", "y"], "label": "a"}, {"text": "fine and well", "label": ["a", "b"]},
        {"text": "half \ud800 a letter", "label": 1},
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, cells)))
    rows, damage = read(path)
    assert [(row.text, row.label) for row in rows] == [
        ("good morning all", "a"),
        ("half ? a letter", "1"),
    ]
    assert damage == {
        "without a text": (3, "t.jsonl line 2"),
        "with a label that is no word": (1, "t.jsonl line 5"),
    }


def test_several_columns_make_one_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("title,body,label\nHello,my printer,a\n,only a body,b\n,,c\n")
    rows, damage = read(path, Columns(("title", "body")))
    assert [row.text for row in rows] == ["Hello\nmy printer", "only a body"]
    assert damage == {"without a text": (1, "t.csv line 4")}


def test_splits_come_from_a_column_or_from_names_of_files(tmp_path):
    (tmp_path / "t.csv").write_text(
        "text,label,split\n" + "a b,x,train\nc d,y,Validation\ne f,x,test\n" * 2
    )
    rows, _ = read(tmp_path / "t.csv")
    assert [row.held_out for row in rows] == [False, True, True] * 2
    for name in ("train", "test", "other"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"{name}.csv").write_text(HEAD + "1,a b,x\n2,c d,y\n")
    rows, _ = read(tmp_path / "set")
    assert [(row.table, row.held_out) for row in rows[::2]] == [
        ("set/other.csv", None), ("set/test.csv", True), ("set/train.csv", False),
    ]  # fmt: skip


def test_a_table_that_cannot_be_read_costs_only_itself(tmp_path):
    (tmp_path / "a.csv").write_text(HEAD + "1,a b,x\n2,c d,y\n")
    (tmp_path / "b.csv").write_text("nr,name\n1,z\n")
    (tmp_path / "c.jsonl.gz").write_bytes(b"no gzip")
    rows, damage = read(tmp_path)
    assert len(rows) == 2
    begins = "b.csv: has no column 'text', which another table has"
    assert damage == {"unreadable table": (2, begins)}
    (tmp_path / "a.csv").unlink()
    (tmp_path / "b.csv").unlink()
    with pytest.raises(FrameError, match=r"^c\.jsonl\.gz: is no whole gzip file$"):
        read(tmp_path)


@pytest.mark.parametrize("content", [HEAD, "text,label\n" + '"\n' * 3])
def test_a_table_without_a_row_is_told(tmp_path, content):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(FrameError, match=r"^t\.csv: holds no row") as error:
        read(tmp_path / "t.csv")
    assert error.value.reason == "no row"


def test_guessed_encodings_are_counted_once_and_unknown_ones_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes((HEAD + "1,née hier,x\n2,là bas,y\n").encode("latin-1"))
    guessed = DamageLog()
    tables = TextTables(tmp_path / "t.csv")
    assert [row.text for row in tables.rows(DamageLog(), guessed)] == ["née hier", "là bas"]
    assert [loss.count for loss in guessed.all()] == [2]
    for wrong in ("utf-9", "base64", "a\0b"):
        with pytest.raises(SettingsError, match=r"is not known; expected e.g. utf-8 or cp1250"):
            TextTables(tmp_path / "t.csv", encoding=wrong)
