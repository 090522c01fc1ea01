import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.manifest import (
    DataSetManifest,
    ManifestRow,
    has_label_alone,
    header_line,
    is_labelled,
    row_line,
    write_manifest,
)
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

pytestmark = pytest.mark.base

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=[]), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
boxes = st.builds(Box, label=texts, x0=numbers, y0=numbers, x1=numbers, y1=numbers)
rows = st.builds(
    ManifestRow,
    file=texts.filter(bool),
    topic=texts,
    stamp_ns=st.integers(-(2**63), 2**63 - 1),
    source=texts,
    label=texts,
    sharpness=st.none() | numbers,
    width=st.integers(0, 10_000),
    height=st.integers(0, 10_000),
    boxes=st.lists(boxes, max_size=3).map(tuple),
    seen=st.booleans(),
)


@given(st.lists(rows, max_size=4))
def test_every_row_reads_back_to_the_last_bit(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("m") / "manifest.csv"
    write_manifest(path, written)
    found = list(DataSetManifest(path))
    assert found == written
    assert list(map(row_line, found)) == list(map(row_line, written))  # also the sign of a zero


def test_the_columns_are_those_of_the_documentation(tmp_path):
    assert header_line() == "file,topic,stamp_ns,source,label,sharpness,width,height,boxes\n"
    box = Box(label="bin", x0=1.5, y0=2.0, x1=1 / 3, y1=1e-7)
    row = ManifestRow(file="a.jpg", topic="/t", stamp_ns=7, source="b", sharpness=2.5, boxes=(box,))
    assert row_line(row) == (
        'a.jpg,/t,7,b,,2.5,0,0,"[{""label"": ""bin"", ""x0"": 1.5, ""y0"": 2.0, '
        '""x1"": 0.3333333333333333, ""y1"": 1e-07}]"\n'
    )


def test_a_frame_that_was_found_empty_is_another_than_one_that_nobody_has_looked_at():
    empty = ManifestRow(file="a.jpg", topic="/t", stamp_ns=7, source="b", label="c", seen=True)
    unseen = ManifestRow(file="a.jpg", topic="/t", stamp_ns=7, source="b", label="c")
    assert row_line(empty) == "a.jpg,/t,7,b,c,,0,0,[]\n"
    assert row_line(unseen) == "a.jpg,/t,7,b,c,,0,0,\n"
    assert has_label_alone(row_line(empty))
    assert has_label_alone(row_line(unseen))
    assert is_labelled(row_line(replace(empty, label="")))
    assert not is_labelled(row_line(replace(unseen, label="")))
    box = Box(label="bin", x0=0.0, y0=0.0, x1=1.0, y1=1.0)
    assert replace(unseen, boxes=(box,)).seen


def test_a_manifest_is_read_anew_at_every_iteration(tmp_path):
    path = tmp_path / "manifest.csv"
    row = ManifestRow(file="a.jpg", topic="/t", stamp_ns=7, source="b")
    write_manifest(path, [row])
    manifest = DataSetManifest(path)
    assert list(manifest) == list(manifest) == [row]


def test_a_table_from_a_spreadsheet_is_a_manifest_too(tmp_path):
    path = tmp_path / "manifest.csv"
    content = "\ufeffFile,stamp_ns,topic,source,label,extra\r\na.jpg,7,/t,b,caf\u00e9,1\r\n\r\n"
    path.write_bytes(content.encode())
    (row,) = DataSetManifest(path)
    assert row == ManifestRow(file="a.jpg", topic="/t", stamp_ns=7, source="b", label="caf\u00e9")
    path.write_bytes(content[1:].encode("latin-1"))
    (row,) = DataSetManifest(path)
    assert row.label == "caf\u00e9"


@pytest.mark.parametrize(
    "line",
    [
        "a.jpg,/t,soon,b,,,1,1,",
        "a.jpg,/t",
        "a.jpg,/t,7,b,,sharp,1,1,",
        "a.jpg,/t,7,b,,,wide,1,",
        "a.jpg,/t,7,b,,,1,1,no json",
        "a.jpg,/t,7,b,,,1,1,{}",
        "a.jpg,/t,7,b,,,1,1,[1]",
        'a.jpg,/t,7,b,,,1,1,"[{""label"": 1, ""x0"": 1, ""y0"": 1, ""x1"": 1, ""y1"": 1}]"',
        'a.jpg,/t,7,b,,,1,1,"[{""label"": ""a"", ""x0"": NaN, ""y0"": 1, ""x1"": 1, ""y1"": 1}]"',
        '"a.jpg"x,/t,7,b,,,1,1,',
        "a.jpg,/t,7,b,,,1,1," + "[" * 100_000,
        "a.jpg,/t," + "7" * 5000 + ",b,,,1,1,",
    ],
)
def test_a_line_that_is_no_row_is_damage_with_its_number_and_the_rest_is_read(tmp_path, line):
    path = tmp_path / "manifest.csv"
    good = "b.jpg,/t,8,b,,,1,1,\n"
    path.write_text(f"{header_line()}{good}{line}\n{good}")
    damage = DamageLog()
    assert [row.file for row in DataSetManifest(path, damage)] == ["b.jpg", "b.jpg"]
    (found,) = damage.all()
    assert (found.kind, found.count) == ("bad manifest row", 1)
    assert found.begins.startswith("manifest.csv line 3: ")
    with pytest.raises(FrameError, match=r"manifest\.csv line 3"):
        list(DataSetManifest(path))


@pytest.mark.parametrize("content", ["", "file,label\n", "file\n" * 3])
def test_a_file_without_the_columns_is_an_error_that_names_them(tmp_path, content):
    (tmp_path / "manifest.csv").write_text(content)
    with pytest.raises(FrameError, match="no column"):
        list(DataSetManifest(tmp_path / "manifest.csv", DamageLog()))


def test_a_manifest_that_is_not_there_is_a_missing_file(tmp_path):
    with pytest.raises(FrameError) as caught:
        list(DataSetManifest(tmp_path / "manifest.csv"))
    assert caught.value.reason == "missing file"
    assert str(tmp_path) not in str(caught.value)


def test_a_frame_may_have_thousands_of_boxes(tmp_path):
    many = tuple(Box(label="b", x0=i / 7, y0=0.0, x1=math.pi * i, y1=1.0) for i in range(5000))
    row = ManifestRow(file="a.jpg", topic="/t", stamp_ns=7, source="b", boxes=many)
    write_manifest(tmp_path / "manifest.csv", [row])
    assert list(DataSetManifest(tmp_path / "manifest.csv")) == [row]


def test_labels_are_those_of_rows_and_boxes_and_damage_is_counted_as_in_rows(tmp_path):
    box = Box(label="bin", x0=0.0, y0=0.0, x1=1.0, y1=1.0)
    rows = [
        ManifestRow(file="a.jpg", topic="", stamp_ns=1, source="s", label="clear", boxes=(box,)),
        ManifestRow(file="b.jpg", topic="", stamp_ns=2, source="s"),
    ]
    path = tmp_path / "manifest.csv"
    write_manifest(path, rows)
    assert list(DataSetManifest(path).labels()) == [{"clear", "bin"}, {""}]
    with path.open("a") as stream:
        stream.write('c.jpg,,3,s,,,0,0,"[{"\n')
    damage = DamageLog()
    assert len(list(DataSetManifest(path, damage).labels())) == 2
    assert [each.kind for each in damage.all()] == ["bad manifest row"]
