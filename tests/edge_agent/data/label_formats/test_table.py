import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.label_formats.table import Labels, labels_by_file, labels_by_stamp, names_files
from edge_agent.data.manifest import ManifestRow, write_manifest
from fleet_model.errors import FrameError
from fleet_model.types import Box

pytestmark = pytest.mark.base

A = Box(label="a", x0=1.0, y0=2.0, x1=3.0, y1=4.5)
B = Box(label="b", x0=0.0, y0=0.0, x1=9.0, y1=9.0)


@pytest.fixture
def table(tmp_path):
    def write(text):
        (tmp_path / "labels.csv").write_text(text)
        return tmp_path / "labels.csv"

    return write


def test_a_frame_may_have_a_label_or_boxes_or_both(table):
    path = table(
        "file,label,x0,y0,x1,y1\n1.jpg,scene\n2.jpg,a,1,2,3,4.5\n2.jpg,b,0,0,9,9\n"
        "3.jpg,a,1,2,3,4.5\n3.jpg,scene,,,,\n"
    )
    damage = DamageLog()
    assert labels_by_file(path, damage) == {
        "1.jpg": Labels("scene", ()),
        "2.jpg": Labels("b", (A, B)),
        "3.jpg": Labels("scene", (A,)),
    }
    assert not damage
    assert names_files(path)


def test_a_manifest_is_a_table_by_stamp(tmp_path):
    rows = [
        ManifestRow(file="a", topic="/c", stamp_ns=5, source="s", label="scene", boxes=(A, B)),
        ManifestRow(file="b", topic="/c", stamp_ns=6, source="s"),
    ]
    write_manifest(tmp_path / "manifest.csv", rows)
    found = list(labels_by_stamp(tmp_path / "manifest.csv", DamageLog()))
    assert found == [(5, Labels("scene", (A, B), "/c")), (6, Labels("", (), "/c"))]
    assert not names_files(tmp_path / "manifest.csv")


def test_bad_lines_are_named_and_the_rest_is_read(table):
    path = table("stamp_ns,label,x0,y0,x1,y1\nsoon,a\n7\n7,a,1,2\n7,a,1,2,x,4\n8,b\n")
    damage = DamageLog()
    assert [each for each in labels_by_stamp(path, damage) if each[1].label] == [
        (8, Labels("b", ()))
    ]
    (found,) = damage.all()
    assert (found.kind, found.count) == ("bad label line", 4)
    assert found.begins.startswith("labels.csv line 2")


def test_a_table_without_the_columns_says_what_it_needs(table):
    with pytest.raises(FrameError, match="names no column label; expected stamp_ns,label"):
        list(labels_by_stamp(table("stamp_ns,name\n1,a\n"), DamageLog()))


@given(st.text(st.sampled_from('0123456789,."\n\r\0aNi-[]{}:'), max_size=60))
def test_any_text_is_labels_or_damage(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("t") / "a.csv"
    path.write_text("stamp_ns,label,boxes,x0,y0,x1,y1\n" + text)
    list(labels_by_stamp(path, DamageLog()))
