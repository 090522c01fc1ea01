"""JSON lines and arrays by value."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.tables import json_lines, text_file
from fleet_model.tables.json_lines import JsonTable

pytestmark = pytest.mark.base


@pytest.fixture
def read(tmp_path):
    def call(content, name="t.jsonl"):
        content = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(content)
        damage = DamageLog()
        rows = [(row.number, row.cells) for row in JsonTable(tmp_path / name, name).rows(damage)]
        return rows, {loss.kind: (loss.count, loss.begins) for loss in damage.all()}

    return call


LINES = '{"text": "a\\nb", "label": 1}\n\n{"text": "c"}\n'
ROWS = [(1, {"text": "a\nb", "label": 1}), (3, {"text": "c"})]


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_each_line_is_an_object_in_any_unicode(read, codec):
    assert read(LINES.encode(codec)) == (ROWS, {})


def test_it_may_be_compressed(read):
    assert read(gzip.compress(LINES.encode()), "t.jsonl.gz") == (ROWS, {})


def test_what_is_no_object_is_counted_with_its_first_line(read):
    rows, damage = read('{"text": "a"}\n{"text": \n[1]\n7\n{"text": "b"}\n' + "[" * 100_000 + "\n")
    assert [cells["text"] for _, cells in rows] == ["a", "b"]
    assert damage == {"damaged row": (4, "t.jsonl line 2")}


def test_an_array_is_read_object_by_object_up_to_where_it_is_damaged(read):
    objects = [{"text": "a", "label": 1}, {"text": "b", "label": None}]
    assert read(json.dumps(objects, indent=1), "t.json") == ([*enumerate(objects, 1)], {})
    rows, damage = read('[{"text": "a"}, 5, {"text": "b"}, {"te', "t.json")
    assert [number for number, _ in rows] == [1, 3]
    assert damage == {"damaged row": (2, "t.json object 2")}
    with pytest.raises(FrameError, match=r"^t\.json: is no JSON$"):
        read("[nothing", "t.json")
    with pytest.raises(FrameError, match="a compressed array is not read; write JSON lines"):
        read(gzip.compress(b"[{}]"), "t.json.gz")


@pytest.mark.parametrize(
    ("codec", "given", "told"),
    [("cp1252", "", 1), ("cp1250", "cp1250", 0), ("utf-8", "", 0), ("utf-16", "", 0)],
)
def test_the_text_of_an_array_is_read_as_it_was_saved(tmp_path, codec, given, told):
    """A first line without anything is no row, and hides no array."""
    text = {"cp1252": "Tür für Fräulein", "cp1250": "dveře"}.get(codec, "Tür, dveře")
    content = "\n" + json.dumps([{"text": text}, {"text": "a"}], ensure_ascii=False)
    (tmp_path / "t.json").write_bytes(content.encode(codec))
    damage, guessed = DamageLog(), DamageLog()
    table = JsonTable(tmp_path / "t.json", "t.json", encoding=given, guessed=guessed)
    assert [row.cells["text"] for row in table.rows(damage)] == [text, "a"]
    assert not damage
    assert sum(loss.count for loss in guessed.all()) == told


def test_a_line_that_is_too_long_is_left_out(read, monkeypatch):
    for module in (json_lines, text_file):
        monkeypatch.setattr(module, "LONGEST", 100)
    rows, damage = read('{"text": "' + "x" * 500 + '"}\n{"text": "b"}\n')
    assert rows == [(2, {"text": "b"})]
    assert damage == {json_lines.TOO_LONG: (1, "t.jsonl line 1")}


@given(
    objects=st.lists(
        st.dictionaries(
            st.text(max_size=8),
            st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
            min_size=1,
        )
    ),
    plain=st.booleans(),
)
def test_what_is_written_is_read(tmp_path_factory, objects, plain):
    path = tmp_path_factory.mktemp("json") / "t.jsonl"
    lines = (json.dumps(one, ensure_ascii=plain) for one in objects)
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    damage = DamageLog()
    assert [row.cells for row in JsonTable(path, "t.jsonl").rows(damage)] == objects
    assert not damage
